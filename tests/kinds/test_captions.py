"""What panels say of runs whose numbers are easy to check; `dynlora.contracts` holds what every kind of run must."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dynlora.kinds.run_kind import RunKind, registry
from dynlora.viz.kit.panel import Panel, RunView
from dynlora.viz.report import run_report
from tests.kinds.decode.written import written_decode
from tests.kinds.distil.written import written_distil
from tests.kinds.merge.written import written_merge
from tests.kinds.recycle.written import written_recycle

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

each_panel = pytest.mark.parametrize(
    ("kind", "panel"), PANELS, ids=[f"{kind.name}-{panel.id}" for kind, panel in PANELS]
)


@each_panel
def test_a_panel_says_what_a_finished_run_recorded(kind: RunKind, panel: Panel[Any], tmp_path: Path) -> None:
    folder = WRITTEN[kind.name](tmp_path, **MORE.get(f"{kind.name}-{panel.id}", {}))
    view = RunView(folder, kind.read(folder))
    assert panel.applies(view)
    data = panel.data(view)
    assert data is not None
    golden = Path(__file__).parent / kind.name / "captions" / f"{panel.id}.txt"
    assert panel.caption(data) == golden.read_text("utf-8").rstrip("\n"), f"caption of {golden.name}"


def test_the_report_of_a_decode_is_one_page_whose_texts_stay_texts(tmp_path: Path) -> None:
    page = run_report(written_decode(tmp_path, name="<script>alert(1)</script>")).decode()
    assert "<script>alert(1)" not in page
    assert "Accuracy against cost" in page


MORE: dict[str, dict[str, Any]] = {"decode-nested": {"nested_ranks": [{"rank": 1, "share": 0.1, "agreement": 0.6}]}}
"""What a run must also have recorded for a panel."""
