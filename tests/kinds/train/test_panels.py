"""Every panel of every sample run: in light and dark, with the caption that is written down, in all three places."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import plotly.graph_objects as go
import pytest
from streamlit.testing.v1 import AppTest

import dynlora
from dynlora.errors import NotRecordedError
from dynlora.viz.kit.panel import Panel, RunView
from dynlora.viz.kit.theme import DARK, LIGHT
from dynlora.viz.report.document import Chart, Table
from dynlora.viz.report.one_run import document_view, run_document
from tests.kinds.train import samples

each_run = pytest.mark.parametrize("folder", samples.TRAININGS, ids=lambda folder: folder.name)


@each_run
def test_every_panel_says_what_is_written_down_and_is_drawn_light_and_dark(folder: Path) -> None:
    for panel, end, view in samples.cards(samples.view_of(folder)):
        data = panel.data(view)
        words = panel.reason_missing(view) if data is None else panel.caption(data)
        assert words == samples.written(panel)[f"{folder.name}{end}"], f"{panel.id}{end}"
        if data is not None:
            assert len(panel.table(data))
            _is_drawn(panel, data)


def _is_drawn(panel: Panel[Any], data: Any) -> None:
    for colours in (LIGHT, DARK):
        figure = panel.figure(data, colours)
        assert (figure is not None) == panel.has_figure
        assert figure is None or (isinstance(figure, go.Figure) and list(figure.data)), panel.id
        assert bool(panel.element) == bool(panel.element_values(data, colours)), panel.id


@each_run
def test_report_and_notebook_hold_every_panel(folder: Path) -> None:
    run, plots = samples.view_of(folder).result, dynlora.open_run(folder).plot
    blocks = {one.title: one for part in run_document(run).parts for one in part.blocks}
    view = document_view(run)
    for panel in (panel for panel in samples.PANELS if panel.applies(view)):
        assert panel.id in dir(plots)
        for one in _documented(panel, view):
            block = blocks[panel.heading(one)]
            assert isinstance(block, Chart | Table)
            assert block.sentence == panel.caption(panel.data(one))


def _documented(panel: Panel[Any], view: RunView) -> list[RunView]:
    """Return what a report shows of a panel."""
    views = [] if panel.element else panel.document_views(view).values()
    return [one for one in views if panel.data(one) is not None]


def page(folder: str) -> None:
    """Draw the cards of a sample run."""
    from pathlib import Path

    from dynlora.viz.ui.panel_cards import panel_cards
    from dynlora.viz.ui.replay import replay
    from tests.kinds.train import samples

    panel_cards(samples.PANELS, samples.view_of(Path(folder)), {"replay": replay})


@each_run
def test_a_page_draws_every_panel(folder: Path) -> None:
    app = AppTest.from_function(page, args=(str(folder),), default_timeout=60).run()
    assert not app.exception
    drawn = [panel for panel, _, view in samples.cards(samples.view_of(folder)) if panel.data(view) is not None]
    assert len(app.get("plotly_chart")) == sum(panel.has_figure for panel in drawn)


def test_what_is_no_figure_and_what_needs_a_choice_say_so() -> None:
    run = dynlora.open_run(samples.SAMPLES / "20261125-140142-b5a65d24")
    with pytest.raises(NotRecordedError, match="no figure decisions"):
        run.plot.decisions()
    with pytest.raises(NotRecordedError, match="Choose a module"):
        run.plot.module()
    name = run.modules["name"][0]
    assert run.plot.module(module=name).caption.endswith(f"is the module {name}.")
