"""A page that follows a run looks more rarely where a look takes long."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dynlora.viz.ui import frame, live
from dynlora.viz.ui.live import SHARE, SLOWEST_S, Paces
from tests.pages.app import open_page


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


def test_it_comes_back_when_looks_are_quick_again() -> None:
    paces = Paces()
    for seconds in [3.0] * 9 + [0.1] * 9:
        paces.keep("a part", seconds)
    assert paces.pause("a part", 2) == 2


def test_the_first_look_shows_the_answer_that_decided_whether_it_is_looked_again() -> None:
    queries: list[int] = []
    answer = live.reused("first", lambda: f"again {queries.append(1) or len(queries)}")
    assert [answer(), answer(), answer()] == ["first", "again 1", "again 2"]


def test_the_menu_counts_active_runs_once_each_time_it_is_drawn(
    runs_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts: list[None] = []
    monkeypatch.setattr(frame, "count_active", lambda: counts.append(None) or 2)
    open_page("methods")
    assert len(counts) == 1


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
