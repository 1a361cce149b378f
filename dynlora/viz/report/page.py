"""A report as one HTML file: its parts, and the page in which nothing is run but two scripts of ours.

Jinja fills the template and escapes every value; only what this file makes itself (style, script, bundle and
JSON that cannot end its element) is marked as safe.
"""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files
from itertools import count
from typing import Any, NamedTuple

import jinja2
import numpy as np
import pandas as pd
import plotly.graph_objects as go
from markupsafe import Markup

from dynlora.analysis.result_strip import Answer
from dynlora.text import number, one_line
from dynlora.viz.kit import theme
from dynlora.viz.kit.theme import DARK, LIGHT, Palette, digest, policy, script_json

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


def chart_data(charts: Iterable[Chart]) -> list[dict[str, Any]]:
    """Return each chart as `figure`, drawn for light, and `dark`, the places and values that differ for dark."""
    specs = []
    for chart in charts:
        light, dark = (_values(chart.draw(colours)) for colours in (LIGHT, DARK))
        specs.append({"figure": light, "dark": list(differences(light, dark))})
    return specs


def differences(first: Any, second: Any, place: tuple[str | int, ...] = ()) -> Iterator[list[Any]]:
    """Yield [place, value in `second`] wherever two plain values differ; a place is a list of keys and positions."""
    if isinstance(first, dict) and isinstance(second, dict) and first.keys() == second.keys():
        for key in first:
            yield from differences(first[key], second[key], (*place, key))
    elif isinstance(first, list) and isinstance(second, list) and len(first) == len(second):
        for i, (one, other) in enumerate(zip(first, second, strict=True)):
            yield from differences(one, other, (*place, i))
    elif first != second:
        yield [list(place), second]


def _values(figure: go.Figure) -> dict[str, Any]:
    """Return a figure as values JSON can hold."""
    drawn = json.loads(figure.to_json(validate=False) or "{}")
    drawn["layout"].pop("template", None)
    return {"data": [_halved(trace) for trace in drawn["data"]], "layout": drawn["layout"]}


def _halved(value: Any) -> Any:
    """Return a trace with its tables of double precision in single, which a picture cannot show."""
    if isinstance(value, list):
        return [_halved(item) for item in value]
    if not isinstance(value, dict):
        return value
    if value.get("dtype") == "f8" and "shape" in value:
        numbers = np.frombuffer(base64.b64decode(value["bdata"]), "<f8")
        with np.errstate(over="ignore"):
            packed = base64.b64encode(numbers.astype("<f4").tobytes()).decode("ascii")
        return value | {"dtype": "f4", "bdata": packed}
    return {key: _halved(item) for key, item in value.items()}


class Bundle(NamedTuple):
    """plotly.js, packed.

    Attributes:
        packed: gzip, as base64.
        digest: of what is unpacked, as a policy names it.
    """

    packed: str
    digest: str


@cache
def plotly_bundle() -> Bundle:
    """Return plotly.js as the plotly package brings it; the same bytes for the same package."""
    source = files("plotly").joinpath("package_data", "plotly.min.js").read_bytes()
    return Bundle(base64.b64encode(gzip.compress(source, 9, mtime=0)).decode("ascii"), digest(source))


_FILES = files("dynlora.viz.report")
MOST_LINE = 2000
"""Characters of one line of text."""


class Replay(NamedTuple):
    """The moving picture of a run beside its report, with what is shown in its place.

    Attributes:
        file: name of its file, or of the still one where nothing moved.
        alt: what it shows.
        sources: other files, by the media query under which each is shown: the dark ones, and those that do not move.
    """

    file: str
    alt: str
    sources: Sequence[tuple[str, str]]


class Entry(NamedTuple):
    """A report in an index.

    Attributes:
        file: name of its file, beside the index.
        document: what it says.
        picture: of the run; None where it has none.
    """

    file: str
    document: Document
    picture: Replay | None = None


class Comparison(NamedTuple):
    """The comparison of the reports of an index.

    Attributes:
        file: name of its file, beside the index.
        title: of the comparison.
        sentence: what it concludes.
    """

    file: str
    title: str
    sentence: str


def index(title: str, entries: Sequence[Entry], comparison: Comparison | None) -> bytes:
    """Return the first page of a gallery as HTML, without a script: each run with its answers and its report."""
    words = {"title": title, "entries": entries, "comparison": comparison}
    return _rendered("gallery.html", policy=policy(has_pictures=True), **words)


def page(report: Document, picture: Replay | None = None) -> bytes:
    """Return a report as HTML; the same report always gives the same bytes.

    Args:
        report: what it says.
        picture: of the run, in files beside the report; None where the report is alone.
    """
    script, bundle = _read("report.js"), plotly_bundle()
    return _rendered(
        "report.html",
        policy=policy(digest(script.encode()), bundle.digest, has_pictures=picture is not None),
        report=report,
        picture=picture,
        cards=cards(report),
        charts=Markup(script_json(chart_data(report.charts))),
        plotly=Markup(bundle.packed),
        script=Markup(script),
    )


def _rendered(template: str, **values: Any) -> bytes:
    """Return a page made of a template, in the style of all."""
    versions = f"Written by dynlora {_version('dynlora')} with plotly {_version('plotly')}."
    return _templates().get_template(template).render(versions=versions, style=Markup(_style()), **values).encode()


@cache
def _templates() -> jinja2.Environment:
    """Return the templates: every value is escaped, a name that nobody gave is an error."""
    templates = jinja2.Environment(
        loader=jinja2.FunctionLoader(_read),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    templates.filters.update(line=lambda value, limit=MOST_LINE: one_line(value, limit), lines=cut_lines)
    templates.filters["grid"] = grid
    return templates


def _style() -> str:
    """Return the style with the colours of both modes; no value of a run is in it."""
    return jinja2.Template(_read("report.css")).render(
        light=theme.css_variables(theme.LIGHT), dark=theme.css_variables(theme.DARK), font=theme.FONT
    )


def _read(name: str) -> str:
    return _FILES.joinpath(name).read_text("utf-8")


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:  # a checkout on the path, not installed
        return "(checkout)"
