"""What every kind of run and every panel of one must do: they are tested by existing."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
import pytest

import dynlora
from dynlora.config import Section
from dynlora.errors import NotRecordedError
from dynlora.kinds.registry import registry
from dynlora.kinds.run_kind import RunKind
from dynlora.store.summary import run_summary
from dynlora.viz.kit.panel import Panel, RunView
from dynlora.viz.kit.theme import DARK, LIGHT
from dynlora.viz.report import run_report
from dynlora.viz.report.document import Chart, Table
from dynlora.viz.report.one_run import kind_document
from tests.kinds.decode.written import written_decode
from tests.kinds.distil.written import written_distil
from tests.kinds.merge.written import written_merge
from tests.kinds.recycle.written import written_recycle

ROOT = Path(__file__).resolve().parents[2]
KINDS = sorted(registry().values(), key=lambda kind: kind.name)
WRITTEN: dict[str, Callable[..., Path]] = {
    "decode": written_decode,
    "distil": written_distil,
    "merge": written_merge,
    "recycle": written_recycle,
}
"""Writes a finished run of each kind with panels, its numbers easy to check; with `state=None` one at work."""

PANELS = [(kind, panel) for kind in KINDS for panel in kind.panels if kind.name in WRITTEN]
"""Those of trainings are drawn of every sample run, see `tests/kinds/train`."""

named = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
each_panel = pytest.mark.parametrize(
    ("kind", "panel"), PANELS, ids=[f"{kind.name}-{panel.id}" for kind, panel in PANELS]
)


@named
def test_a_kind_is_declared_whole(kind: RunKind) -> None:
    assert type(kind).__module__ == f"dynlora.kinds.{kind.name}.kind"
    assert issubclass(kind.settings, Section)
    assert (ROOT / "pages" / f"{kind.page}.py").is_file()
    assert kind.about


def test_kinds_and_their_panels_are_there_without_torch() -> None:
    code = (
        "import sys; from dynlora.kinds.registry import registry; "
        "print(sum(len(kind.panels) for kind in registry().values())); assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == sum(len(kind.panels) for kind in KINDS)


@named
def test_panels_have_names_and_places_of_their_own(kind: RunKind) -> None:
    assert len({panel.id for panel in kind.panels}) == len({panel.order for panel in kind.panels}) == len(kind.panels)
    assert all(panel.title and panel.missing for panel in kind.panels)


@pytest.mark.parametrize("name", sorted(WRITTEN))
def test_a_finished_run_has_a_conclusion_and_one_at_work_says_what_it_does(name: str, tmp_path: Path) -> None:
    kind, folder = registry()[name], WRITTEN[name](tmp_path)
    result = kind.read(folder)
    conclusion = kind.conclusion(result)
    assert conclusion.text.endswith(".")
    assert conclusion.basis
    assert kind.facts(folder, run_summary(folder))["conclusion"] == f"{conclusion.text} {conclusion.basis}"
    assert kind.headline(result)
    begun = WRITTEN[name](tmp_path, state=None)
    assert kind.follow(begun) == kind.read(begun)
    assert kind.progress(kind.follow(begun), 1).text


@each_panel
def test_a_panel_draws_a_finished_run_light_and_dark(kind: RunKind, panel: Panel[Any], tmp_path: Path) -> None:
    folder = WRITTEN[kind.name](tmp_path, **MORE.get(f"{kind.name}-{panel.id}", {}))
    view = RunView(folder, kind.read(folder))
    assert panel.applies(view)
    data = panel.data(view)
    assert data is not None
    assert len(panel.table(data))
    for colours in (LIGHT, DARK):
        figure = panel.figure(data, colours)
        assert figure is None or (isinstance(figure, go.Figure) and list(figure.select_traces()))
        assert "<script" not in panel.html(data, colours)
    golden = Path(__file__).parent / kind.name / "captions" / f"{panel.id}.txt"
    assert panel.caption(data) == golden.read_text("utf-8").rstrip("\n"), f"caption of {golden.name}"


@pytest.mark.parametrize("name", sorted(WRITTEN))
def test_report_and_notebook_hold_every_panel(name: str, tmp_path: Path) -> None:
    kind, folder = registry()[name], WRITTEN[name](tmp_path)
    view, report = RunView(folder, kind.read(folder)), kind_document(folder, kind)
    conclusion = kind.conclusion(view.result)
    assert list(report.parts[0].notes) == [conclusion.text, conclusion.basis]
    blocks = {block.title: block for part in report.parts for block in part.blocks}
    plots = dynlora.open_run(folder).plot
    for panel in (panel for panel in kind.panels if panel.applies(view)):
        data = panel.data(view)
        if data is None:
            assert f"{panel.title}: {panel.reason_missing(view)}" in report.parts[1].notes
            continue
        block = blocks[panel.title]
        assert isinstance(block, Chart | Table)
        assert block.sentence == panel.caption(data)
        assert panel.id in dir(plots)
        if isinstance(block, Chart):
            assert getattr(plots, panel.id)().caption == panel.caption(data)
        else:
            with pytest.raises(NotRecordedError, match=f"no figure {panel.id}"):
                getattr(plots, panel.id)()


def test_the_report_of_a_decode_is_one_page_whose_texts_stay_texts(tmp_path: Path) -> None:
    page = run_report(written_decode(tmp_path, name="<script>alert(1)</script>")).decode()
    assert "<script>alert(1)" not in page
    assert "Accuracy against cost" in page


@each_panel
def test_a_panel_says_what_a_run_that_has_just_begun_lacks(kind: RunKind, panel: Panel[Any], tmp_path: Path) -> None:
    folder = WRITTEN[kind.name](tmp_path, state=None, **BEGUN[kind.name])
    view = RunView(folder, kind.read(folder))
    if panel.applies(view):
        assert panel.data(view) is None
        assert panel.reason_missing(view).endswith(".")


MORE: dict[str, dict[str, Any]] = {"decode-nested": {"nested_ranks": [{"rank": 1, "share": 0.1, "agreement": 0.6}]}}
"""What a run must also have recorded for a panel."""

BEGUN: dict[str, dict[str, Any]] = {
    "decode": {"problems": 0},
    "distil": {"until": 0},
    "merge": {"until": 0},
    "recycle": {"until": 0},
}
"""How each kind writes a run of which no step is taken."""
