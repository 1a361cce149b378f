"""What a report is made of: parts with charts, tables and texts, and how each becomes HTML that holds only text."""

# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false, reportGeneralTypeIssues=false
# (pandas comes without types: a column is taken for a frame and a frame for a column)
from __future__ import annotations

import html
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import pandas as pd
import plotly.graph_objects as go

from dynlora.viz.kit.text import number, one_line
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
    """

    title: str
    about: str
    facts: Mapping[str, str]
    parts: Sequence[Part]
    notes: Sequence[str] = field(default_factory=tuple)

    @property
    def shown(self) -> list[Part]:
        """The parts that have something to say."""
        return [part for part in self.parts if part.blocks or part.notes]

    @property
    def charts(self) -> list[Chart]:
        """All charts, in order."""
        return [block for part in self.shown for block in part.blocks if isinstance(block, Chart)]


def text(value: object, limit: int = 2000) -> str:
    """Return text as HTML: on one line, cut, nothing in it markup."""
    return html.escape(one_line(value, limit))


def head(document: Document) -> str:
    """Return the top of the page: title, facts, notes, and the links to the parts."""
    facts = "".join(f"<div><dt>{text(name)}</dt><dd>{text(value)}</dd></div>" for name, value in document.facts.items())
    links = "".join(f'<a href="#part-{i}">{text(part.title)}</a>' for i, part in enumerate(document.shown))
    return (
        f'<h1>{text(document.title, 120)}</h1>\n<p class="about">{text(document.about)}</p>\n'
        f'<dl class="facts">{facts}</dl>\n{_notes(document.notes)}<nav aria-label="parts">{links}</nav>'
    )


def body(document: Document) -> str:
    """Return the parts; the charts are numbered in the order of `Document.charts`."""
    found, count = [], 0
    for i, part in enumerate(document.shown):
        cards = []
        for block, is_wide in zip(part.blocks, _widths(part.blocks), strict=True):
            cards.append(_card(block, is_wide, count))
            count += isinstance(block, Chart)
        found.append(
            f'<section id="part-{i}">\n<h2>{text(part.title)}</h2>\n{_notes(part.notes)}'
            f'<div class="cards">\n{"".join(cards)}</div>\n</section>\n'
        )
    return "".join(found)


def _widths(blocks: Sequence[Block]) -> list[bool]:
    """Say of each block whether it takes the width of the page: wide ones, and those that find no neighbour."""
    found: list[bool] = []
    waits = False  # a half of the line before is still free
    for i, block in enumerate(blocks):
        alone = not waits and (i + 1 == len(blocks) or blocks[i + 1].is_wide)
        found.append(block.is_wide or alone)
        waits = not found[-1] and not waits
    return found


def _notes(notes: Sequence[str]) -> str:
    return "".join(f'<p class="note">{text(words)}</p>\n' for words in notes)


def _card(block: Block, is_wide: bool, number_of_chart: int) -> str:
    wide = " wide" if is_wide else ""
    inner = {Chart: _chart, Table: _table, Text: _text}[type(block)](block, number_of_chart)
    return f'<article class="card{wide}">\n<h3>{text(block.title)}</h3>\n{inner}</article>\n'


def _chart(block: Chart, place: int) -> str:
    return (
        f'<div class="plot" data-chart="{place}" role="img" aria-label="{text(block.sentence)}"></div>\n'
        f'<p class="sentence">{text(block.sentence)}</p>\n'
        f"<details><summary>Table</summary>{grid(block.table)}</details>\n"
    )


def _table(block: Table, _: int) -> str:
    sentence = f'<p class="sentence">{text(block.sentence)}</p>\n' if block.sentence else ""
    return f"{grid(block.frame)}\n{sentence}"


def _text(block: Text, _: int) -> str:
    return f"<pre>{_lines(block.text)}</pre>\n"


def _lines(words: str) -> str:
    """Return lines as HTML, their indents kept; each is cut, and so is their number."""
    lines = words.splitlines()[:MOST_LINES]
    return "\n".join(" " * (len(line) - len(line.lstrip(" "))) + text(line, MOST_TEXT) for line in lines)


def grid(frame: pd.DataFrame) -> str:
    """Return a frame as an HTML table of at most `MOST_ROWS` rows, which says so when it holds more."""
    shown = frame.iloc[:MOST_ROWS, :MOST_COLUMNS]
    heads = "".join(f"<th>{text(name, MOST_TEXT)}</th>" for name in shown.columns)
    numeric = [pd.api.types.is_numeric_dtype(shown.iloc[:, i]) for i in range(shown.shape[1])]
    rows = "".join(
        "<tr>" + "".join(_cell(value, is_number) for value, is_number in zip(row, numeric, strict=True)) + "</tr>\n"
        for row in shown.itertuples(index=False, name=None)
    )
    cut = f"<p>{len(shown):,} of {len(frame):,} rows shown.</p>" if len(shown) < len(frame) else ""
    return f'<div class="scroll"><table><thead><tr>{heads}</tr></thead><tbody>\n{rows}</tbody></table></div>{cut}'


def _cell(value: object, is_number: bool) -> str:
    if value is None or (pd.api.types.is_scalar(value) and pd.isna(value)):
        return "<td>–</td>"
    if is_number and not isinstance(value, bool):
        return f'<td class="number">{number(value, 4)}</td>'
    return f"<td>{text(value, MOST_TEXT)}</td>"
