"""A run as a card in a notebook: how it stands, what it is, its result with what that rests on, and its ranks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pandas as pd

from dynlora.analysis import ranks_to_use, run_summary
from dynlora.analysis.frames import number_format
from dynlora.analysis.result_strip import result_strip
from dynlora.analysis.run_reading import read_run
from dynlora.analysis.run_summary import STATUS_WORDS
from dynlora.analysis.verdict import run_verdict
from dynlora.store.summary import RunSummary
from dynlora.text import one_line, score
from dynlora.viz.kit import rank_picture, theme

_FILES = files("dynlora.notebook")

LOOK = {
    "line": theme.faded(theme.CATEGORICAL[7], 0.45),
    "ink": theme.LIGHT.sequential[3],
    "grey": theme.CATEGORICAL[7],
}
"""Colours that show on light and on dark: borders, what is filled, what has no colour of its own."""

STATUS_COLOURS = {
    "running": theme.CATEGORICAL[1],
    "stopping": theme.CATEGORICAL[1],
    "finished": theme.CATEGORICAL[2],
    "stopped": theme.CATEGORICAL[4],
    "failed": theme.CATEGORICAL[5],
    "interrupted": theme.CATEGORICAL[5],
}
"""Colour of the dot before a status; others are grey."""

MOST_ROWS = 30
"""Rows of a table that a card shows."""


def filled(template: str, /, **values: Any) -> str:
    """Return a template of this folder, filled; every value is escaped.

    Args:
        template: name of the file.
        values: by the names that it uses.
    """
    return _templates().get_template(template).render(look=LOOK, status_colours=STATUS_COLOURS, **values)


def table(frame: pd.DataFrame, dots: Sequence[str | None] = ()) -> dict[str, Any]:
    """Return a table as the templates draw it: numbers with one format a column, at the right.

    Args:
        frame: the table; `MOST_ROWS` of its rows are shown.
        dots: colour of the dot before each row, None for a grey one; empty for no dots.
    """
    rows = frame.head(MOST_ROWS)
    is_number = [pd.api.types.is_numeric_dtype(frame.iloc[:, place]) for place in range(frame.shape[1])]
    columns = [_column(rows.iloc[:, place], is_number=numeric) for place, numeric in enumerate(is_number)]
    return {
        "head": [
            {"name": str(name), "is_number": numeric} for name, numeric in zip(frame.columns, is_number, strict=True)
        ],
        "rows": [list(cells) for cells in zip(*columns, strict=True)],
        "dots": list(dots)[: len(rows)],
        "more": len(frame) - len(rows),
    }


def _column(values: pd.Series, *, is_number: bool) -> list[str]:
    """Return the cells of a column as text; a dash where there is nothing."""
    if not is_number:
        return ["–" if pd.isna(value) else str(value) for value in values]
    form = number_format(values)
    written = "{:,.0f}".format if form == "localized" else lambda value: form % value
    return ["–" if pd.isna(value) else written(float(value)) for value in values]


@cache
def _templates() -> jinja2.Environment:
    """Return the templates: every value is escaped, a name that nobody gave is an error."""
    templates = jinja2.Environment(
        loader=jinja2.FunctionLoader(lambda name: _FILES.joinpath(name).read_text("utf-8")),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters["line"] = one_line
    return templates


WIDE, NARROW, LABELLED = 44, 22, 9
"""Pixels of a column with its name and without, and how many columns have names."""

HIGH, ALL, GAP, LEFT, FOOT = 19, 190, 2, 24, 16
"""Pixels of a row, of all rows at most, between cells, and beside and below them."""


def rank_grid(ranks: Mapping[str, int], modules: pd.DataFrame) -> dict[str, Any] | None:
    """Return the picture as cells and labels, in pixels; None where no module with a rank is in a layer.

    Args:
        ranks: last rank of each module, by name.
        modules: as `analysis.frames.described` returns them.
    """
    pattern = rank_picture.pattern(ranks, modules) if ranks and len(modules) else pd.DataFrame()
    if pattern.empty:
        return None
    values = pattern.to_numpy(float)
    rows, columns = values.shape
    wide = WIDE if columns <= LABELLED else NARROW
    high = max(2.0, min(HIGH, ALL / rows))
    gap = GAP if high > 2 * GAP else 0.5
    most = max(1.0, float(np.nanmax(values)))
    places = [(row, column) for row in range(rows) for column in range(columns) if np.isfinite(values[row, column])]
    cells = [
        {
            "x": LEFT + column * wide,
            "y": round(row * high, 2),
            "width": wide - gap,
            "height": round(high - gap, 2),
            "share": round(values[row, column] / most, 3),
            "words": f"layer {pattern.index[row]:.0f}, {pattern.columns[column]}: rank {values[row, column]:.0f}",
        }
        for row, column in places
    ]
    known = values[np.isfinite(values)]
    return {
        "cells": cells,
        "labels": [*_layers(pattern, high), *(_kinds(pattern, wide, rows * high) if wide == WIDE else [])],
        "width": LEFT + columns * wide,
        "height": round(rows * high + FOOT),
        "title": f"Rank by layer and kind of module, {known.min():.0f} to {known.max():.0f}",
    }


def _layers(pattern: pd.DataFrame, high: float) -> list[dict[str, Any]]:
    """Return the names of the first and the last layer."""
    ends = {0, len(pattern) - 1}
    return [
        {"x": LEFT - 6, "y": round((row + 0.5) * high + 3.5, 2), "anchor": "end", "words": f"{pattern.index[row]:.0f}"}
        for row in sorted(ends)
    ]


def _kinds(pattern: pd.DataFrame, wide: int, bottom: float) -> list[dict[str, Any]]:
    """Return the names of the kinds of modules, below their columns."""
    return [
        {"x": LEFT + (column + 0.5) * wide - 1, "y": round(bottom + 11, 2), "anchor": "middle", "words": str(name)}
        for column, name in enumerate(pattern.columns)
    ]


def run_card(folder: Path) -> str:
    """Return a run as HTML, as it is now.

    Raises:
        DynloraError: when the run cannot be read.
    """
    run = read_run(folder)
    summary, modules = run.summary, run.modules
    is_over = summary.status not in run_summary.ACTIVE
    return filled(
        "run_card.html",
        name=summary.name,
        about=run_summary.about(summary),
        status_word=STATUS_WORDS.get(summary.status, summary.status),
        steps=run_summary.format_progress(dict(summary)),
        share=None if is_over else run_summary.progress_share(dict(summary)),
        error=summary.error or "",
        strip=result_strip(summary, run_verdict(folder, summary), ranks_to_use.evidence_of(run)).answers,
        figures=_figures(summary, len(run.event_steps)),
        id=folder.name,
        ranks=rank_grid(summary.ranks, modules),
    )


def _figures(summary: RunSummary, moved: int) -> dict[str, str]:
    """Return what the strip does not say: label to value; what is not known yet is left out."""
    loss = summary.metrics.get("loss")
    is_said = loss is None or run_summary.main_metric(dict(summary))[0] == "loss"
    figures = {
        f"Loss, held-out ({run_summary.loss_unit(summary)})": None if is_said else score(loss),
        "Reallocations": f"{moved}" if moved else None,
    }
    return {label: words for label, words in figures.items() if words is not None}
