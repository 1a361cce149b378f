"""Pages of a running run: they look more rarely where a look takes long, keep their address, and tell of the end."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from dynlora.store.lifecycle import annotate
from dynlora.viz.ui import live
from dynlora.viz.ui.live import SHARE, SLOWEST_S, Paces
from tests.pages.app import components, open_page, plain
from tests.store.builder import finished_run, new_run
from tests.viz.growing import PLANNED, RUN, Running


@pytest.mark.parametrize(
    ("took", "pause"),
    [([], 2), ([9, 9], 2), ([0.1] * 3, 2), ([9, 0.1, 0.1], 2), ([0.5] * 3, 4), ([1.0] * 3, 8), ([99] * 3, SLOWEST_S)],
)
def test_a_look_takes_a_fifth_of_the_time_at_most(took: list[float], pause: float) -> None:
    paces = Paces()
    for seconds in took:
        paces.keep("a part", seconds)
    assert paces.pause("a part", 2) == pause
    assert paces.pause("another part", 2) == 2
    assert pause in (2, SLOWEST_S) or sorted(took)[1] * SHARE <= pause


class RerunAsked(Exception):
    """What `st.rerun` does here."""


def test_a_part_takes_its_new_pause_with_a_whole_run(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float | None] = []
    clock = iter(range(0, 1000, 2))  # a look takes two seconds

    def fragment(run_every: float | None) -> Callable[[Any], Any]:
        pauses.append(run_every)
        return lambda draw: draw

    def rerun() -> None:
        raise RerunAsked

    monkeypatch.setattr(live, "PACES", Paces())
    monkeypatch.setattr(live.st, "fragment", fragment)
    monkeypatch.setattr(live.st, "rerun", rerun)
    monkeypatch.setattr(live.time, "perf_counter", lambda: next(clock))

    def draw() -> None:
        """Nothing."""

    look = live.following(2, active=True)(draw)
    look()
    look()
    with pytest.raises(RerunAsked):
        look()
    live.following(2, active=True)(draw)()
    live.following(2, active=False)(draw)()
    assert pauses == [2, 16, None]


@pytest.fixture
def running(runs_dir: Path) -> Running:
    """A run at step 22 of 400."""
    run = Running(runs_dir)
    run.advance(22)
    return run


def address(app: AppTest) -> dict[str, str]:
    """Return the names and values in the address of a page."""
    return {name: value if isinstance(value, str) else value[0] for name, value in app.query_params.items()}


def test_a_page_left_alone_keeps_its_address_and_follows_the_run(running: Running) -> None:
    app, key = open_page("inputs", run=RUN), "address-step"
    before = address(app)
    identity = app.slider(key=key).proto.id
    for step in (23, 60):
        running.advance(step)
        app.run()
        assert address(app) == before, "nobody has touched a control"
        assert app.slider(key=key).proto.id == identity, "drawn anew it would flicker, and lose what is being dragged"
    running.writer.finish("stopped", None)
    app = open_page("inputs", run=RUN)
    assert app.slider(key=key).max == 60


def test_an_end_that_was_picked_stays_and_an_open_one_follows(running: Running) -> None:
    app = open_page("capacity", run=RUN)
    identity = app.slider(key="address-steps").proto.id
    app.slider(key="address-steps").set_range(5, 20).run()
    assert address(app)["steps"] == "5-20"
    running.advance(30)
    app.run()
    assert address(app)["steps"] == "5-20"
    assert app.slider(key="address-steps").proto.id == identity
    app.slider(key="address-steps").set_range(5, PLANNED).run()
    assert address(app)["steps"] == "5-"
    running.advance(35)
    app.run()
    assert address(app)["steps"] == "5-"
    assert "steps 5 to 35" in plain(app)


ENDING, OTHER = "20260101-000000-00000001", "20260101-000000-00000002"


def notices(app: AppTest) -> list[dict[str, str]]:
    (element,) = components(app, "notice")
    proto: Any = element.proto
    return json.loads(proto.mixed.json if proto.HasField("mixed") else proto.json)["ended"]


def test_a_run_that_ends_is_told_once_with_how_it_ended(runs_dir: Path) -> None:
    finished_run(runs_dir, 3, OTHER, name="over before")
    new_run(runs_dir, ENDING, "queued", name="<b>mine</b>")
    app = open_page("methods")
    assert notices(app) == []
    annotate(runs_dir / ENDING, state="stopped")
    assert notices(app.run()) == [{"id": ENDING, "name": "<b>mine</b>", "status": "stopped"}]
    annotate(runs_dir / ENDING, state="queued")
    assert notices(app.run()) == [], "a run that goes on has not ended"
    assert notices(open_page("methods")) == []


def test_a_run_that_was_removed_meanwhile_is_no_news(runs_dir: Path) -> None:
    new_run(runs_dir, ENDING, "queued")
    app = open_page("methods")
    (runs_dir / ENDING).rename(runs_dir / ".gone")
    assert notices(app.run()) == []
