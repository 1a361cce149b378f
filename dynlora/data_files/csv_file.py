"""CSV and TSV: separator and lines are found, quotes and line breaks inside of cells understood.

Cells become numbers and gaps as pandas reads them, in pieces of `PIECE` rows whose types follow the first.
"""

from __future__ import annotations

import csv
import io
import math
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from dynlora.data_files.json_file import column
from dynlora.data_files.opening import MAX_LINE_BYTES, Source, as_utf8, checked_columns, first_line, refusal
from dynlora.data_files.table import ARROW_REFUSALS, Table, plain

GAPS: dict[str, Any] = {"keep_default_na": False, "na_values": ["", "nan", "NaN"]}
"""A text or class may be called NA, None or null; an empty cell, or a number that is none, is a gap."""

PIECE = 10_000
SEPARATORS = {",": "comma", ";": "semicolon", "\t": "tab"}
_LOOKED_AT = 50
"""Records that are looked at to find the separator."""


def read(source: Source, limit: int | None = None) -> Table:
    """Return the table of a CSV or TSV file.

    Args:
        source: its bytes.
        limit: most rows that are read; None for all.

    Raises:
        DataError: in one sentence with the line.
    """
    source = as_utf8(source)
    separator, has_empty_end = _layout(source)
    options: dict[str, Any] = {**GAPS, "sep": separator, "nrows": limit}
    if has_empty_end:
        options["index_col"] = False
    try:
        rows = _typed(source, options)
    except pd.errors.EmptyDataError:
        raise refusal(source.name, "has no header line; add one with the names of the columns") from None
    except (pd.errors.ParserError, csv.Error) as error:
        raise _explained(source, separator, error) from None
    notes = (f"{source.encoding}, {SEPARATORS[separator]} between the cells",)
    return Table.of(source.name, rows, _lines(source, separator, rows.num_rows, limit), notes)


def records(source: Source, separator: str) -> Iterator[tuple[int, list[str]]]:
    """Yield (first line, cells) of each record; lines that are blank are left out."""
    csv.field_size_limit(max(csv.field_size_limit(), MAX_LINE_BYTES))
    with io.TextIOWrapper(source.open(), "utf-8-sig", newline="") as text:
        reader, line = csv.reader(text, delimiter=separator), 1
        for cells in reader:
            if cells and (len(cells) > 1 or cells[0].strip(" \t")):
                yield line, cells
            line = reader.line_num + 1


def _layout(source: Source) -> tuple[str, bool]:
    """Return the separator, and whether each row ends with one too many.

    Comma wins where it makes two columns or more: files that were read before stay as they are.
    """
    first = ("\t",) if source.path.name.lower().removesuffix(".gz").endswith(".tsv") else tuple(SEPARATORS)
    found = {separator: _head(source, separator) for separator in first}
    if not any(found.values()):
        raise refusal(source.name, "has no header line; add one with the names of the columns")
    fitting = [separator for separator, head in found.items() if head and len(head[0]) > 1 and _is_even(head)]
    several = [separator for separator, head in found.items() if head and len(head[0]) > 1]
    separator = next(iter([*fitting, *several]), first[0])
    header, *others = found[separator]
    checked_columns(source.name, header)
    return separator, bool(others) and all(len(row) == len(header) + 1 and row[-1] == "" for row in others)


def _head(source: Source, separator: str) -> list[list[str]]:
    """Return the cells of the first records."""
    found: list[list[str]] = []
    try:
        for _, cells in records(source, separator):
            found.append(cells)
            if len(found) > _LOOKED_AT:
                break
    except csv.Error:
        pass
    return found


def _is_even(head: list[list[str]]) -> bool:
    """Say whether no record has more cells than the header, one aside, which may name the rows or be empty."""
    return all(len(cells) <= len(head[0]) + 1 for cells in head)


def _typed(source: Source, options: dict[str, Any]) -> pa.Table:
    """Return the cells with their types, those of the first piece where the others fit them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", (pd.errors.DtypeWarning, pd.errors.ParserWarning))  # pyright: ignore
        try:
            with source.open() as file, pd.read_csv(file, iterator=True, chunksize=PIECE, **options) as pieces:
                tables = [plain(pa.Table.from_pandas(frame)) for frame in pieces]
            if tables:
                return pa.concat_tables([table.cast(tables[0].schema) for table in tables])
        except ARROW_REFUSALS:
            pass  # the pieces differ; read at once, a column is of one type throughout
        with source.open() as file:
            frame = pd.read_csv(file, low_memory=False, **options)
        return _of_frame(frame)


def _of_frame(frame: pd.DataFrame) -> pa.Table:
    """Return the cells of a frame; a column of several types, or of numbers that are too large, is text."""
    try:
        return plain(pa.Table.from_pandas(frame))
    except ARROW_REFUSALS:
        return pa.table({str(name): column([_or_gap(cell) for cell in frame[name].tolist()]) for name in frame})


def _or_gap(cell: Any) -> Any:
    """Return a cell, None for a gap."""
    return None if isinstance(cell, float) and math.isnan(cell) else cell


def _lines(source: Source, separator: str, n: int, limit: int | None) -> np.ndarray | None:
    """Return the line in which each row begins, None where that cannot be told."""
    with io.TextIOWrapper(source.open(), "utf-8-sig") as text:
        count = sum(1 for _ in text)
    if count == n + 1:
        return np.arange(2, n + 2)
    try:
        lines = [line for line, _ in records(source, separator)][1:]
    except csv.Error:
        return None
    lines = lines[:n] if limit is not None else lines
    return np.array(lines, np.int64) if len(lines) == n else None


def _explained(source: Source, separator: str, error: Exception) -> Exception:
    """Return the sentence for a file that is no table, with the line where it goes wrong."""
    last = 1
    try:
        width = 0
        for line, cells in records(source, separator):
            width, last = width or len(cells), line
            if len(cells) > width:
                problem = (
                    f"has {len(cells)} cells where the header has {width}; put texts that hold a "
                    f"{SEPARATORS[separator]} between double quotes"
                )
                return refusal(source.name, problem, line)
    except csv.Error:
        last += 1
    if isinstance(error, csv.Error) or "EOF inside string" in str(error):
        return refusal(source.name, 'a double quote opens there and never closes; add the other, or write it ""', last)
    return refusal(source.name, f"cannot be read as CSV ({first_line(error)}); check the file")
