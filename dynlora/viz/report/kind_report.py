"""The report of a run whose kind declares its conclusion and its panels."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from dynlora.analysis import run_summary as words
from dynlora.kinds.run_kind import RunKind
from dynlora.store.summary import run_summary
from dynlora.text import one_line
from dynlora.viz.kit.panel import Panel, RunView
from dynlora.viz.kit.theme import LIGHT
from dynlora.viz.report.document import Block, Chart, Document, Part, Table
from dynlora.viz.report.setup_part import setup_part


def kind_document(folder: Path, kind: RunKind) -> Document:
    """Return the report of a run: its conclusion, what that rests on, its panels, and how it was made.

    Raises:
        DynloraError: when the run cannot be read.
    """
    summary, result = run_summary(folder), kind.read(folder)
    conclusion, view = kind.conclusion(result), RunView(folder, result)
    tables = [Table(title.replace("-", " ").capitalize(), frame) for title, frame in kind.tables(result).items()]
    panels = [block for panel in kind.panels if panel.applies(view) for block in _blocks(panel, view)]
    missing = [f"{panel.title}: {panel.reason_missing(view)}" for panel in kind.panels if panel.data(view) is None]
    done = kind.done.format(step=summary["step"], total=summary["max_steps"])
    return Document(
        one_line(summary["name"], 120),
        kind.headline(result),
        {"status": f"{summary['status']}, {done.lower()}"},
        [
            Part("Conclusion", tables, [note for note in (conclusion.text, conclusion.basis) if note]),
            Part("Evidence", panels, missing),
            setup_part(summary),
        ],
        [words.about(summary)],
    )


def _blocks(panel: Panel[Any], view: RunView) -> list[Block]:
    """Return a panel as a chart, or as its table where it has no figure, and its further tables."""
    data = panel.data(view)
    if data is None:
        return []
    caption, table = panel.caption(data), panel.table(data)
    more = [Table(title, frame) for title, frame in panel.more(data).items()]
    if panel.figure(data, LIGHT) is None:
        return [Table(panel.title, table, caption, panel.is_wide), *more]
    return [Chart(panel.title, partial(panel.figure, data), caption, table, panel.is_wide), *more]
