"""What the report of one run holds, part by part; what the run has not recorded is left out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from dynlora.analysis import health, run_summary
from dynlora.analysis.run_reading import RunReading
from dynlora.analysis.verdict import run_verdict
from dynlora.kinds.registry import registry
from dynlora.text import number, one_line
from dynlora.viz.kit.panel import RunView
from dynlora.viz.report.conclusion_parts import ranks_part, verdict_part
from dynlora.viz.report.document import Document, Part
from dynlora.viz.report.kind_report import panel_blocks
from dynlora.viz.report.knockouts_part import knockouts_part
from dynlora.viz.report.results_part import results_part
from dynlora.viz.report.setup_part import setup_part

CELLS = 12_000
"""Most cells of a heat map, modules times columns: a report is read and mailed."""


def run_document(run: RunReading) -> Document:
    """Return the report of a run.

    Raises:
        DynloraError: when the run cannot be read.
    """
    summary, view = run.summary, document_view(run)
    times = run_summary.step_times(run.scalars)
    judged = run_verdict(run.folder, summary)
    found = [
        *([] if judged is None else [verdict_part(judged)]),
        ranks_part(run),
        training_part(view),
        panel_part("Capacity", view),
        knockouts_part(run),
        panel_part("Inputs", view),
        results_part(view),
        panel_part("Cost", view),
        setup_part(summary),
    ]
    return Document(
        one_line(summary["name"], 120),
        run_summary.about(summary),
        {"status": _status(summary), **run_summary.headline(summary, len(run.event_steps), times)},
        found,
        _health(run),
    )


def document_view(run: RunReading) -> RunView:
    """Return what the panels of a report are drawn of: maps of a size that a document can hold."""
    run = replace(run, columns=int(np.clip(CELLS // max(len(run.modules), 1), 40, 400)))
    return RunView(run.folder, run, run.store)


def _status(summary: Mapping[str, Any]) -> str:
    where = f"step {number(summary['step'])} of {number(summary['max_steps'])}"
    return str(summary["status"]) if summary["step"] >= summary["max_steps"] else f"{summary['status']}, {where}"


def _health(run: RunReading) -> list[str]:
    """Return the findings about the run, and what was checked and is well."""
    if not run.summary["step"]:
        return []
    found = health.outcome(run.evidence)
    said = (f"{one.level.capitalize()}: {one.title}. {one.words}" for one in found.findings)
    return [*said, " ".join([found.conclusion, *found.details])]


def panel_part(title: str, view: RunView) -> Part:
    """Return the panels of a training that stand under a heading."""
    return Part(title, panel_blocks((panel for panel in registry()["train"].panels if panel.part == title), view))


def training_part(view: RunView) -> Part:
    """Return what the run learned; a note where it has not begun."""
    part = panel_part("Training", view)
    return part if part.blocks else replace(part, notes=["No data has been recorded yet."])
