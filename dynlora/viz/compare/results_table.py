"""The results table: methods against data sets, mean ± standard deviation over seeds.

As a frame for the page, and as LaTeX (with booktabs) and Markdown, whatever a name holds escaped for each.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from dynlora.analysis.run_summary import main_metric
from dynlora.analysis.seed_groups import grouped, methods
from dynlora.store import search
from dynlora.text import metric_words, one_line, source_name
from dynlora.viz.compare.model import LOW_IS_GOOD
from dynlora.viz.compare.scatter_model import USED, Row, numbers

ROWS = {"method": "One row per method", "configuration": "One row per configuration"}
"""What a row can stand for: name in the address, and words."""

SETTINGS_OF_DATA = ("task", "text", "text_pair", "label", "eval_fraction", "max_train", "max_eval", "max_length")
"""Settings that make another task of a data set."""

MOST_ROWS = 60
MOST_COLUMNS = 12


@dataclass(frozen=True)
class Cell:
    """What the runs of a row came to on one data set.

    Attributes:
        mean: of the deciding metric.
        spread: standard deviation over the runs, n - 1; None for one run.
        n: runs.
        is_best: no row has a better mean as it is printed.
    """

    mean: float
    spread: float | None
    n: int
    is_best: bool = False

    @property
    def printed(self) -> str:
        """The mean as it is in the table."""
        return f"{self.mean:.3f}"


@dataclass(frozen=True)
class Line:
    """A row of the table.

    Attributes:
        label: the method, and what sets its configuration apart.
        parameters: mean of the adapter parameters in use, gates included; None when no run says.
        cells: one for each data set; None where there is no finished run.
    """

    label: str
    parameters: float | None
    cells: tuple[Cell | None, ...]


@dataclass(frozen=True)
class Paper:
    """The table.

    Attributes:
        columns: each data set with its metric.
        lines: in the order of the runs.
        chosen: methods of which the best of several configurations is shown.
        left_out: runs that are not finished or have no result.
        cut: rows and columns that there was no room for.
    """

    columns: tuple[str, ...]
    lines: tuple[Line, ...]
    chosen: tuple[str, ...]
    left_out: int
    cut: int


def paper(rows: Sequence[Row], per: str) -> Paper:
    """Return the table of the finished runs.

    Args:
        rows: of the runs, as plain values.
        per: a key of `ROWS`.
    """
    done = [row for row in rows if row["status"] == "finished" and main_metric(row)[1] is not None]
    columns = _columns(done)
    keys = list(columns)
    ignoring = {key for row in done for key in search.settings(row) if key.startswith("data.")}
    by_id = {row["id"]: row for row in done}
    groups = grouped(done, ignoring)
    cells_of_groups = [(group, _cells([by_id[run] for run in group.runs], keys)) for group in groups]
    lines = [
        Line(group.label, _parameters([by_id[run] for run in group.runs]), cells) for group, cells in cells_of_groups
    ]
    chosen: list[str] = []
    if per == "method":
        named = methods(done)
        lines, chosen = _best_of_each(lines, [named[group.runs[0]] for group in groups], keys)
    cut = max(0, len(lines) - MOST_ROWS) + max(0, len(keys) - MOST_COLUMNS)
    visible_lines = [Line(line.label, line.parameters, line.cells[:MOST_COLUMNS]) for line in lines[:MOST_ROWS]]
    return Paper(
        tuple(columns.values())[:MOST_COLUMNS],
        tuple(_marked(visible_lines, keys)),
        tuple(chosen),
        len(rows) - len(done),
        cut,
    )


_Key = tuple[str, str, tuple[tuple[str, str], ...]]
"""A data set, the metric that decides there, and its other settings: runs that differ in them are not averaged."""


def _key(row: Row) -> _Key:
    settings = {key.removeprefix("data."): value for key, value in search.settings(row).items()}
    other = [(key, str(settings[key])) for key in SETTINGS_OF_DATA if settings.get(key) is not None]
    return str(row["data"]), main_metric(row)[0], tuple(other)


def _columns(rows: Sequence[Row]) -> dict[_Key, str]:
    """Return the words of each data set with its metric; equal words get what differs in the settings, or a number."""
    keys = list(dict.fromkeys(_key(row) for row in rows))
    words = [f"{one_line(source_name(data), 40)} ({metric_words(metric)})" for data, metric, _ in keys]
    titles = [
        _told_apart(word, key, [k for k, same in zip(keys, words, strict=True) if same == word])
        for word, key in zip(words, keys, strict=True)
    ]
    return {
        key: word if titles.count(word) == 1 else f"{word} {i + 1}"
        for i, (key, word) in enumerate(zip(keys, titles, strict=True))
    }


def _told_apart(word: str, key: _Key, alike: Sequence[_Key]) -> str:
    """Return the words of a column with those settings of its data in which columns of the same words differ."""
    differ = [(name, value) for name, value in key[2] if any((name, value) not in other[2] for other in alike)]
    return ", ".join([word, *(f"{name} {one_line(value, 20)}" for name, value in differ)])


def _cells(rows: Sequence[Row], keys: Sequence[_Key]) -> tuple[Cell | None, ...]:
    values: dict[_Key, list[float]] = {}
    for row in rows:
        values.setdefault(_key(row), []).append(float(main_metric(row)[1] or 0.0))
    return tuple(_cell(values[key]) if key in values else None for key in keys)


def _cell(values: Sequence[float]) -> Cell:
    return Cell(float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else None, len(values))


def _parameters(rows: Sequence[Row]) -> float | None:
    known = [value for row in rows if (value := numbers(row).get(USED)) is not None]
    return float(np.mean(known)) if known else None


def _best_of_each(
    lines: Sequence[Line], methods_of: Sequence[str], keys: Sequence[_Key]
) -> tuple[list[Line], list[str]]:
    """Return one row per method, on each data set that of its configurations with the best mean."""
    best, chosen = [], []
    for method in dict.fromkeys(methods_of):
        own = [line for line, name in zip(lines, methods_of, strict=True) if name == method]
        cells = tuple(_best([line.cells[i] for line in own], key) for i, key in enumerate(keys))
        taken = [line for line in own if any(cell is not None and cell in cells for cell in line.cells)]
        sizes = [line.parameters for line in taken if line.parameters is not None]
        best.append(Line(method, float(np.mean(sizes)) if sizes else None, cells))
        chosen += [method] if len(own) > 1 else []
    return best, chosen


def _best(cells: Sequence[Cell | None], key: _Key) -> Cell | None:
    known = [cell for cell in cells if cell is not None]
    if not known:
        return None
    return (min if key[1] in LOW_IS_GOOD else max)(known, key=lambda cell: cell.mean)


def _marked(lines: Sequence[Line], keys: Sequence[_Key]) -> list[Line]:
    """Return the rows with the best cell of each column marked; equal as printed is equal."""
    best: list[str | None] = []
    for i, key in enumerate(keys[:MOST_COLUMNS]):
        cell = _best([line.cells[i] for line in lines], key)
        best.append(None if cell is None else cell.printed)
    return [
        Line(
            line.label,
            line.parameters,
            tuple(
                None if cell is None else Cell(cell.mean, cell.spread, cell.n, cell.printed == top)
                for cell, top in zip(line.cells, best, strict=True)
            ),
        )
        for line in lines
    ]


def format_cell(cell: Cell | None, plus: str = "±", bold: str = "{}") -> str:
    """Return a cell as text: mean ± spread (n); `bold` is put around the mean and spread of the best."""
    if cell is None:
        return "–"
    words = cell.printed if cell.spread is None else f"{cell.printed} {plus} {cell.spread:.3f}"
    return f"{bold.format(words) if cell.is_best else words} ({cell.n})"


def format_parameters(line: Line) -> str:
    """Return the parameters of a row as text."""
    return "–" if line.parameters is None else f"{round(line.parameters):,}"


def frame(table: Paper) -> pd.DataFrame:
    """Return the table for reading and for a file: method, parameters, then mean, deviation and n of each data set."""
    rows: list[dict[str, Any]] = []
    for line in table.lines:
        row: dict[str, Any] = {"method": line.label, "adapter parameters": line.parameters}
        for name, cell in zip(table.columns, line.cells, strict=True):
            row |= {
                f"{name}, mean": None if cell is None else cell.mean,
                f"{name}, deviation": None if cell is None else cell.spread,
                f"{name}, n": None if cell is None else cell.n,
            }
        rows.append(row)
    return pd.DataFrame(rows)


HEADS = ("Method", "Adapter parameters")


def markdown(table: Paper, escape: Callable[[str], str] | None = None) -> str:
    """Return the table as Markdown with pipes, the best of each column in bold.

    Args:
        table: to write.
        escape: makes text of a run harmless; by default for Markdown in a file.
    """
    safe = escape or markdown_escaped
    head = [*HEADS, *(safe(column) for column in table.columns)]
    lines = [_piped(head), _piped(["---", "---:", *(":---:" for _ in table.columns)])]
    for line in table.lines:
        cells = [format_cell(cell, bold="**{}**") for cell in line.cells]
        lines.append(_piped([safe(line.label), format_parameters(line), *cells]))
    return "\n".join(lines) + "\n"


def _piped(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


_MARKDOWN = re.compile(r"([\\`*_{}\[\]()<>#+\-.!|~$&:@^=\"'])")


def markdown_escaped(text: str) -> str:
    """Return text that Markdown shows as it is: every mark gets a backslash."""
    return _MARKDOWN.sub(r"\\\1", one_line(text, 200))


LATEX: Mapping[str, str] = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': "''",
    "–": "--",
    "±": r"$\pm$",
    "×": r"$\times$",
    "…": r"\ldots{}",
}
"""How LaTeX writes the characters that it would take for its own, or has no glyph for."""


def latex_escaped(text: str) -> str:
    """Return text that LaTeX sets as it is."""
    return "".join(LATEX.get(character, character) for character in one_line(text, 200))


def latex(table: Paper) -> str:
    """Return the table as a `tabular` with booktabs, the best of each column in bold."""
    head = [*HEADS, *(latex_escaped(column) for column in table.columns)]
    rows = [
        [
            latex_escaped(line.label),
            latex_escaped(format_parameters(line)),
            *(format_cell(cell, r"$\pm$", r"\textbf{{{}}}").replace("–", "--") for cell in line.cells),
        ]
        for line in table.lines
    ]
    body = [rf"  {' & '.join(cells)} \\" for cells in rows]
    return "\n".join(
        [
            "% needs \\usepackage{booktabs}; mean $\\pm$ standard deviation (number of runs)",
            rf"\begin{{tabular}}{{lr{'c' * len(table.columns)}}}",
            r"  \toprule",
            rf"  {' & '.join(head)} \\",
            r"  \midrule",
            *body,
            r"  \bottomrule",
            r"\end{tabular}",
            "",
        ]
    )
