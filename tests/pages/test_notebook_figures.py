"""What a notebook draws is what the pages draw: the same figure, value for value."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

import dynlora
from dynlora.viz.kit import theme
from dynlora.viz.ui import run_picker
from tests.pages.app import ROOT, components, open_whole

SAMPLES = ROOT / "sample_runs"
MOVED, SHRUNK = "20261205-153533-21b95200", "20261205-144905-03e6ddf3"
"""Runs with reallocations, gates and ablations, and with measured sizes of the adapter."""

COMPARED = (
    "20261205-144905-03e6ddf3",
    "20261205-145331-76f7cc1b",
    "20261205-145115-dab7e702",
    "20261205-145549-b378afa4",
)
"""Two seeds of `lora` and two of `dynamic`."""

Figure = dict[str, Any]


@pytest.fixture(autouse=True)
def _samples(_dashboard: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Show the sample runs as one's own; pages only read them."""
    monkeypatch.setenv(run_picker.RUNS_DIR_VARIABLE, str(SAMPLES))


@functools.cache
def opened(page: str, *address: tuple[str, str]) -> AppTest:
    """Return a page of the sample runs as it is first drawn; several figures are read from one."""
    return open_whole(page, **dict(address))


def on_page(app: AppTest, key: str) -> Figure:
    """Return the figure of a page under the key of its chart."""
    charts = [json.loads(one.proto.spec) for one in app.get("plotly_chart") if one.proto.id.endswith(f"chart-{key}")]
    assert len(charts) == 1, key
    return charts[0]


def without_clicks(figure: Figure) -> Figure:
    """Return a figure of a page without what only a page can do: listen to clicks on its points."""
    for trace in figure["data"]:
        trace.pop("unselected", None)
        if isinstance(trace.get("hovertemplate"), str):
            trace["hovertemplate"] = trace["hovertemplate"].replace("<br>click to select", "")
    return figure


def in_notebook(figure: Any) -> Figure:
    """Return a notebook's figure without the background that it brings along in the place of a card."""
    figure_json = json.loads(figure.to_json())
    assert figure_json["layout"].pop("paper_bgcolor") == theme.LIGHT.panel
    return {**figure_json, "layout": {**figure_json["layout"], "paper_bgcolor": "rgba(0, 0, 0, 0)"}}


def plot(run: str) -> Any:
    return dynlora.open_run(SAMPLES / run).plot


SHOWN = {"signal": "importance", "rows": "depth", "steps": "40-200", "step": "150", "flow": "module"}
"""What a reader chose of Capacity; two figures are read from one page."""

ONE_RUN: list[tuple[str, dict[str, str], str, Callable[[], Any]]] = [
    (
        "capacity",
        SHOWN,
        "map-importance-",
        lambda: plot(MOVED).capacity("importance", 40, 200, step=150, order="depth"),
    ),
    ("capacity", SHOWN, "flow-", lambda: plot(MOVED).flow(40, 200, by="module")),
    ("capacity", {}, "effects-", lambda: plot(MOVED).knockouts()),
    ("inputs", {"map": "gates", "gates": "all", "step": "90"}, "gates-", lambda: plot(MOVED).gates(90, hide=False)),
    ("shrink", {"tolerance": "0.01"}, "shrink-curve", lambda: plot(SHRUNK).shrink(0.01)),
]


@pytest.mark.parametrize(("page", "address", "key", "draw"), ONE_RUN)
def test_a_notebook_draws_the_figure_of_the_page(
    page: str, address: dict[str, str], key: str, draw: Callable[[], Any]
) -> None:
    run = SHRUNK if page == "shrink" else MOVED
    charts = on_page(opened(page, ("run", run), *address.items()), key)
    assert in_notebook(draw()) == without_clicks(charts)


SEVERAL: list[tuple[str, str, Callable[[Any], Any]]] = [
    ("results", "loss", lambda plot: plot.training("loss")),
    ("results", "verdict", lambda plot: plot.differences()),
    ("capacity", "ranks", lambda plot: plot.capacity()),
]


@pytest.mark.parametrize(("section", "key", "draw"), SEVERAL)
def test_a_notebook_draws_the_figure_of_compare(section: str, key: str, draw: Callable[[Any], Any]) -> None:
    charts = on_page(opened("compare", ("runs", ",".join(COMPARED)), ("section", section)), key)
    assert in_notebook(draw(dynlora.compare(COMPARED, SAMPLES).plot)) == charts


def test_a_notebook_plays_the_frames_of_the_page() -> None:
    own = ("version", "linked", "large")  # when to draw again, whether the step goes to the address, for a room
    element = components(opened("capacity", ("run", MOVED)))[0]
    frames = json.loads(element.proto.json)
    played = {**plot(MOVED).replay().data}
    assert {key: value for key, value in played.items() if key not in own} == {
        key: value for key, value in frames.items() if key not in own
    }
