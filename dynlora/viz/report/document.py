"""What a report is made of: parts with charts, tables and texts, and their layout and the cells of their tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from dynlora.analysis.result_strip import Answer
from dynlora.text import number, one_line
from dynlora.viz.kit.theme import Palette

MOST_ROWS = 200
"""Rows of a table that a report holds; a report is read and mailed, the run itself keeps all."""

MOST_COLUMNS = 60
MOST_TEXT = 300
"""Characters of one cell, and of one line."""

MOST_LINES = 500


@dataclass(frozen=True)
class Chart:
    """A question with the figure that answers it.

    Attributes:
        title: the question.
        draw: draws the figure in the colours of a mode.
        sentence: what the figure says.
        table: the numbers behind it.
        is_wide: it takes the width of the page.
    """

    title: str
    draw: Callable[[Palette], go.Figure]
    sentence: str
    table: pd.DataFrame
    is_wide: bool = False


@dataclass(frozen=True)
class Table:
    """A question that a table answers, or a list of facts."""

    title: str
    frame: pd.DataFrame
    sentence: str = ""
    is_wide: bool = False


@dataclass(frozen=True)
class Text:
    """Text that is shown as it is, letter by letter."""

    title: str
    text: str
    is_wide: bool = False


Block = Chart | Table | Text


@dataclass(frozen=True)
class Part:
    """A part of a report: a heading, notes, and what stands under it."""

    title: str
    blocks: Sequence[Block]
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class Document:
    """A report.

    Attributes:
        title: of the page.
        about: the line under it.
        facts: figures that matter first, by their label.
        parts: in order; those without blocks and notes are left out.
        notes: what stands right under the facts.
        strip: questions with their answers, above the facts.
    """

    title: str
    about: str
    facts: Mapping[str, str]
    parts: Sequence[Part]
    notes: Sequence[str] = field(default_factory=tuple)
    strip: Sequence[Answer] = ()

    @property
    def filled_parts(self) -> list[Part]:
        """The parts that have something to say."""
        return [part for part in self.parts if part.blocks or part.notes]

    @property
    def charts(self) -> list[Chart]:
        """All charts, in order."""
        return [block for part in self.filled_parts for block in part.blocks if isinstance(block, Chart)]


@dataclass(frozen=True)
class Card:
    """A block where it is on the page.

    Attributes:
        block: what it shows.
        kind: chart, table or text.
        is_wide: it takes the width of the page.
        place: which chart it is, counted from 0; of a chart only.
    """

    block: Block
    kind: str
    is_wide: bool
    place: int = 0


@dataclass(frozen=True)
class Grid:
    """A frame as a report shows it.

    Attributes:
        columns: names, cut.
        rows: cells as (text, whether it is a number).
        hidden: says how many rows are not shown; empty when all are.
    """

    columns: list[str]
    rows: list[list[tuple[str, bool]]]
    hidden: str


def cards(document: Document) -> list[list[Card]]:
    """Return the cards of each part that is shown; charts are numbered in the order of `Document.charts`."""
    charts = count()
    return [
        [
            Card(block, type(block).__name__.lower(), is_wide, next(charts) if isinstance(block, Chart) else 0)
            for block, is_wide in zip(part.blocks, _widths(part.blocks), strict=True)
        ]
        for part in document.filled_parts
    ]


def _widths(blocks: Sequence[Block]) -> list[bool]:
    """Say of each block whether it takes the width of the page: wide ones, and those that find no neighbour."""
    widths: list[bool] = []
    waits = False  # a half of the line before is still free
    for i, block in enumerate(blocks):
        alone = not waits and (i + 1 == len(blocks) or blocks[i + 1].is_wide)
        widths.append(block.is_wide or alone)
        waits = not widths[-1] and not waits
    return widths


def cut_lines(words: str) -> str:
    """Return at most `MOST_LINES` lines, each cut, their indents kept."""
    lines = words.splitlines()[:MOST_LINES]
    return "\n".join(" " * (len(line) - len(line.lstrip(" "))) + one_line(line, MOST_TEXT) for line in lines)


def grid(frame: pd.DataFrame) -> Grid:
    """Return at most `MOST_ROWS` rows of a frame as text."""
    visible = frame.iloc[:MOST_ROWS, :MOST_COLUMNS]
    numeric = [pd.api.types.is_numeric_dtype(visible.iloc[:, i]) for i in range(visible.shape[1])]
    rows = [
        [_cell(value, is_number) for value, is_number in zip(row, numeric, strict=True)]
        for row in visible.itertuples(index=False, name=None)
    ]
    cut = f"{len(visible):,} of {len(frame):,} rows shown." if len(visible) < len(frame) else ""
    return Grid([one_line(name, MOST_TEXT) for name in visible.columns], rows, cut)


def _cell(value: Any, is_number: bool) -> tuple[str, bool]:
    if value is None or (pd.api.types.is_scalar(value) and pd.isna(value)):
        return "–", False
    if is_number and not isinstance(value, bool):
        return number(value, 4), True
    return one_line(value, MOST_TEXT), False
