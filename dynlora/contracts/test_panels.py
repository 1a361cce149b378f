"""What every figure of a training must hold, tried on the sample runs: on a page, in a report and in a notebook."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
import pytest

import dynlora
from dynlora.analysis.run_reading import read_run
from dynlora.kinds.run_kind import kind_of_run, registry
from dynlora.server.serve import sample_runs_dir
from dynlora.viz.kit.panel import Panel, RunView
from dynlora.viz.kit.theme import DARK, LIGHT
from dynlora.viz.report.documents import document_view, run_document
from dynlora.viz.report.page import Chart, Table

TRAININGS = [one for one in sorted(sample_runs_dir().iterdir()) if one.is_dir() and kind_of_run(one).name == "train"]
FEW = [
    sample_runs_dir() / name
    for name in (
        "20261205-144220-e2a46b83",
        "20261205-145730-6883f320",
        "20261205-150702-62805d63",
        "20261205-151110-efee1d61",
        "20261205-153533-21b95200",
    )
]
"""Sample runs that are always tried; together they have data for every panel. The others in `make torture`."""

PANELS = registry()["train"].panels
each = pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel.id)
of_runs = pytest.mark.parametrize(
    "folders", [FEW, pytest.param(TRAININGS, marks=pytest.mark.torture)], ids=["a few", "all"]
)


def views(panel: Panel[Any], folders: Sequence[Path]) -> list[RunView]:
    """Return every view of a panel that it offers of sample runs."""
    runs = [(folder, read_run(folder)) for folder in folders]
    of_each = [RunView(folder, run, run.store) for folder, run in runs]
    return [one for view in of_each if panel.applies(view) for one in panel.views(view).values()]


def test_names_and_places_are_their_own() -> None:
    """No two panels share their name or their place."""
    assert len({panel.id for panel in PANELS}) == len(PANELS)
    assert all(panel.title and panel.missing.endswith(".") for panel in PANELS)


@of_runs
@each
def test_it_is_drawn_light_and_dark_and_says_what_it_shows(panel: Panel[Any], folders: Sequence[Path]) -> None:
    """Of each sample run it has a caption and a table, and what it draws is the same kind of thing in both modes."""
    for view in views(panel, folders):
        data = panel.data(view)
        if data is None:
            assert panel.reason_missing(view).endswith(".")
            continue
        assert panel.caption(data)
        assert len(panel.table(data))
        for colours in (LIGHT, DARK):
            figure = panel.figure(data, colours)
            assert (figure is not None) == panel.has_figure
            assert figure is None or (isinstance(figure, go.Figure) and list(figure.data))
            assert "<script" not in panel.html(data, colours)
            assert bool(panel.element) == bool(panel.element_values(data, colours))


@pytest.mark.parametrize(
    "folder",
    [one if one in FEW else pytest.param(one, marks=pytest.mark.torture) for one in TRAININGS],
    ids=lambda folder: folder.name,
)
def test_report_and_notebook_hold_every_panel(folder: Path) -> None:
    """What applies to a run is in its report with the same caption, and among `run.plot`."""
    run, plots = read_run(folder), dynlora.open_run(folder).plot
    blocks = {one.title: one for part in run_document(run).parts for one in part.blocks}
    view = document_view(run)
    for panel in (panel for panel in PANELS if panel.applies(view)):
        assert panel.id in dir(plots)
        for one in [] if panel.element else panel.document_views(view).values():
            if (data := panel.data(one)) is not None:
                block = blocks[panel.heading(one)]
                assert isinstance(block, Chart | Table)
                assert block.sentence == panel.caption(data)
