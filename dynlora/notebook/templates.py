"""Cards in a notebook: HTML that inherits the colours around it, so that it suits light and dark.

Jinja fills the templates and escapes every value. Nothing in them runs: no script, no style sheet, no address.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import Any

import jinja2
import pandas as pd

from dynlora.analysis.frames import number_format
from dynlora.text import one_line
from dynlora.viz.kit import theme

_FILES = files("dynlora.notebook")

LOOK = {
    "line": theme.faded(theme.CATEGORICAL[7], 0.45),
    "ink": theme.LIGHT.sequential[3],
    "grey": theme.CATEGORICAL[7],
}
"""Colours that show on light and on dark: borders, what is filled, what has no colour of its own."""

STATUS_COLOURS = {
    "running": theme.CATEGORICAL[1], "stopping": theme.CATEGORICAL[1], "finished": theme.CATEGORICAL[2],
    "stopped": theme.CATEGORICAL[4], "failed": theme.CATEGORICAL[5], "interrupted": theme.CATEGORICAL[5],
}  # fmt: skip
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
    shown = frame.head(MOST_ROWS)
    is_number = [pd.api.types.is_numeric_dtype(frame.iloc[:, place]) for place in range(frame.shape[1])]
    columns = [_column(shown.iloc[:, place], is_number=found) for place, found in enumerate(is_number)]
    return {
        "head": [{"name": str(name), "is_number": found} for name, found in zip(frame.columns, is_number, strict=True)],
        "rows": [list(cells) for cells in zip(*columns, strict=True)],
        "dots": list(dots)[: len(shown)],
        "more": len(frame) - len(shown),
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
    found = jinja2.Environment(
        loader=jinja2.FunctionLoader(lambda name: _FILES.joinpath(name).read_text("utf-8")), autoescape=True,
        undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    found.filters["line"] = one_line
    return found
