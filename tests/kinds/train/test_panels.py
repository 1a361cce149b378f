"""Every panel of every sample run: the caption that is written down, and the card of a page."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

import dynlora
from dynlora.contracts.test_panels import FEW
from dynlora.errors import NotRecordedError
from dynlora.viz.kit.theme import DARK, LIGHT, METHODS
from tests.kinds.train import samples

DRAWN = [one.name for one in FEW]
"""Sample runs whose cards are always drawn; together they have data for every panel. The others in `make torture`."""

each_run = pytest.mark.parametrize("folder", samples.TRAININGS, ids=lambda folder: folder.name)
UNTITLED = ("flow", "effects", "effect_shift", "knockouts", "knockouts_by_group", "importance_by_group")
"""Panels whose columns are named each."""

each_drawn_run = pytest.mark.parametrize(
    "folder",
    [run if run.name in DRAWN else pytest.param(run, marks=pytest.mark.torture) for run in samples.TRAININGS],
    ids=lambda folder: folder.name,
)


@each_run
def test_every_panel_says_what_is_written_down(folder: Path) -> None:
    for panel, end, view in samples.cards(samples.view_of(folder)):
        data = panel.data(view)
        words = panel.reason_missing(view) if data is None else panel.caption(data)
        assert words == samples.written(panel)[f"{folder.name}{end}"], f"{panel.id}{end}"


def test_every_figure_has_the_colours_of_the_theme_alone_and_titles_of_its_axes() -> None:
    seen: set[str] = set()
    for panel, _, view in (card for name in DRAWN for card in samples.cards(samples.view_of(samples.SAMPLES / name))):
        data = None if panel.id in seen or not panel.has_figure else panel.data(view)
        for colours in () if data is None else (LIGHT, DARK):
            drawn = json.loads(str(panel.figure(data, colours).to_json()))  # pyright: ignore[reportOptionalMemberAccess]
            drawn["layout"].pop("template", None)
            allowed = {"#FFFFFF", *re.findall(r"#[0-9A-F]{6}", str(colours)), *METHODS}
            used = set(re.findall(r'"(#[0-9A-Fa-f]{6})"', json.dumps(drawn)))
            assert panel.id == "search" or used <= allowed, panel.id  # shades of the theme, a round each
            assert panel.id in UNTITLED or any(
                axis.get("title", {}).get("text") for name, axis in drawn["layout"].items() if name.startswith("xaxis")
            ), panel.id
            seen.add(panel.id)


def page(folder: str) -> None:
    """Draw the cards of a sample run."""
    from pathlib import Path

    from dynlora.viz.ui.panel_cards import panel_cards
    from dynlora.viz.ui.replay import replay
    from tests.kinds.train import samples

    panel_cards(samples.PANELS, samples.view_of(Path(folder)), {"replay": replay})


@each_drawn_run
def test_a_page_draws_every_panel(folder: Path) -> None:
    app = AppTest.from_function(page, args=(str(folder),), default_timeout=60).run()
    assert not app.exception
    drawn = [panel for panel, _, view in samples.cards(samples.view_of(folder)) if panel.data(view) is not None]
    assert len(app.get("plotly_chart")) == sum(panel.has_figure for panel in drawn)


def test_the_runs_that_are_always_drawn_have_data_for_every_panel_of_the_samples() -> None:
    cards = (card for name in DRAWN for card in samples.cards(samples.view_of(samples.SAMPLES / name)))
    drawn = {panel.id for panel, _, view in cards if panel.data(view) is not None}
    assert drawn == {file.stem for file in samples.CAPTIONS.glob("*.txt")}


def test_what_is_no_figure_and_what_needs_a_choice_say_so() -> None:
    run = dynlora.open_run(samples.SAMPLES / "20261205-145516-b785bd74")
    with pytest.raises(NotRecordedError, match="no figure decisions"):
        run.plot.decisions()
    with pytest.raises(NotRecordedError, match="Choose a module"):
        run.plot.module()
    name = run.modules["name"][0]
    assert run.plot.module(module=name).caption.endswith(f"is the module {name}.")
