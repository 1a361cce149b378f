"""The report of a run whose kind declares its conclusion and its panels."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from dynlora.analysis import run_summary as words
from dynlora.kinds.run_kind import RunKind
from dynlora.store.summary import run_summary
from dynlora.text import one_line
from dynlora.viz.kit.panel import Panel, RunView
from dynlora.viz.kit.theme import Palette
from dynlora.viz.report.document import Block, Chart, Document, Part, Table
from dynlora.viz.report.setup_part import setup_part

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

HALF = 4
"""Of a row, in eighths: what is wider takes the row."""


def kind_document(folder: Path, kind: RunKind) -> Document:
    """Return the report of a run: its conclusion, what that rests on, its panels, and how it was made.

    Raises:
        DynloraError: when the run cannot be read.
    """
    summary, result = run_summary(folder), kind.read(folder)
    conclusion, view = kind.conclusion(result), RunView(folder, result)
    tables = [Table(title.replace("-", " ").capitalize(), frame) for title, frame in kind.tables(result).items()]
    missing = [f"{panel.title}: {panel.reason_missing(view)}" for panel in kind.panels if panel.data(view) is None]
    done = kind.done.format(step=summary["step"], total=summary["max_steps"])
    return Document(
        one_line(summary["name"], 120),
        kind.headline(result),
        {"status": f"{summary['status']}, {done.lower()}"},
        [
            Part("Conclusion", tables, [note for note in (conclusion.text, conclusion.basis) if note]),
            Part("Evidence", panel_blocks(kind.panels, view), missing),
            setup_part(summary),
        ],
        [words.about(summary)],
    )


def panel_blocks(panels: Iterable[Panel[Any]], view: RunView) -> list[Block]:
    """Return the panels that apply to a run, as a document shows them."""
    views = [
        (panel, one)
        for panel in panels
        if panel.applies(view) and not panel.element
        for one in panel.document_views(view).values()
    ]
    return [block for panel, one in views for block in _blocks(panel, one)]


def _blocks(panel: Panel[Any], view: RunView) -> list[Block]:
    """Return a panel as a chart, or as its table where it has no figure, and its further tables."""
    data = panel.data(view)
    if data is None:
        return []
    title, caption, table = panel.heading(view), panel.caption(data), panel.short_table(data)
    is_wide = panel.is_wide or panel.width > HALF
    more: list[Block] = [Table(title, frame) for title, frame in panel.more(data).items()]
    if not panel.has_figure:
        return [Table(title, table, caption, is_wide), *more]
    draw = cast("Callable[[Palette], Figure]", partial(panel.figure, data))
    return [Chart(title, draw, caption, table, is_wide), *more]
