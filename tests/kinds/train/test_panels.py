"""Every panel of every sample run: the caption that is written down, and the card of a page."""

from __future__ import annotations

from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

import dynlora
from dynlora.contracts.test_panels import THIRD
from dynlora.errors import NotRecordedError
from tests.kinds.train import samples

each_run = pytest.mark.parametrize("folder", samples.TRAININGS, ids=lambda folder: folder.name)
each_drawn_run = pytest.mark.parametrize(
    "folder",
    [run if run in THIRD else pytest.param(run, marks=pytest.mark.torture) for run in samples.TRAININGS],
    ids=lambda folder: folder.name,
)


@each_run
def test_every_panel_says_what_is_written_down(folder: Path) -> None:
    for panel, end, view in samples.cards(samples.view_of(folder)):
        data = panel.data(view)
        words = panel.reason_missing(view) if data is None else panel.caption(data)
        assert words == samples.written(panel)[f"{folder.name}{end}"], f"{panel.id}{end}"


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
    cards = (card for folder in THIRD for card in samples.cards(samples.view_of(folder)))
    drawn = {panel.id for panel, _, view in cards if panel.data(view) is not None}
    assert drawn == {file.stem for file in samples.CAPTIONS.glob("*.txt")}


def test_what_is_no_figure_and_what_needs_a_choice_say_so() -> None:
    run = dynlora.open_run(samples.SAMPLES / "20261125-140142-b5a65d24")
    with pytest.raises(NotRecordedError, match="no figure decisions"):
        run.plot.decisions()
    with pytest.raises(NotRecordedError, match="Choose a module"):
        run.plot.module()
    name = run.modules["name"][0]
    assert run.plot.module(module=name).caption.endswith(f"is the module {name}.")
