"""CSV and TSV: separator and lines are found, quotes and line breaks inside of cells understood.

Cells become numbers and gaps as pandas reads them, in pieces of `PIECE` rows whose types follow the first.
"""

from __future__ import annotations

import csv
import io
import math
import warnings
from collections.abc import Iterator
from itertools import chain, islice
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from dynlora.data_files.opening import MAX_LINE_BYTES, FileError, Source, as_utf8, checked_columns, first_line, refusal
from dynlora.data_files.table import ARROW_REFUSALS, Table, as_text_note, is_text, like, of_columns, plain

GAPS: dict[str, Any] = {"keep_default_na": False, "na_values": ["", "nan", "NaN"]}
"""A text or class may be called NA, None or null; an empty cell, or a number that is none, is a gap."""

PIECE = 10_000
SEPARATORS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "vertical bar"}
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
    separator, width = _layout(source)
    options: dict[str, Any] = {**GAPS, "sep": separator, "nrows": limit}
    try:
        options |= _beyond_the_header(source, separator, width, limit)
        rows, mixed = _typed(source, options)
    except pd.errors.EmptyDataError:
        raise refusal(source.name, "has no header line; add one with the names of the columns") from None
    except (pd.errors.ParserError, csv.Error) as error:
        raise _explained(source, separator, error) from None
    notes = (f"{source.encoding}, {SEPARATORS[separator]} between the cells", *as_text_note(mixed))
    return Table.of(source.name, rows, _lines(source, separator, rows.num_rows, limit), notes, source.guess)


def records(source: Source, separator: str) -> Iterator[tuple[int, list[str]]]:
    """Yield (first line, cells) of each record; lines that are blank are left out."""
    csv.field_size_limit(max(csv.field_size_limit(), MAX_LINE_BYTES))
    with io.TextIOWrapper(source.open(), "utf-8-sig", newline="") as text:
        reader, line = csv.reader(text, delimiter=separator), 1
        for cells in reader:
            if cells and (len(cells) > 1 or cells[0].strip(" \t")):
                yield line, cells
            line = reader.line_num + 1


def _layout(source: Source) -> tuple[str, int]:
    """Return the separator, and how many columns the header names.

    Comma wins where it makes two columns or more: files that were read before stay as they are.
    """
    first = ("\t",) if source.path.name.lower().removesuffix(".gz").endswith(".tsv") else tuple(SEPARATORS)
    heads = {separator: _head(source, separator) for separator in first}
    if not any(heads.values()):
        raise refusal(source.name, "has no header line; add one with the names of the columns")
    fitting = [separator for separator, head in heads.items() if head and len(head[0]) > 1 and _is_even(head)]
    several = [separator for separator, head in heads.items() if head and len(head[0]) > 1]
    separator = next(iter([*fitting, *several]), first[0])
    header = checked_columns(source.name, heads[separator][0])
    return separator, len(header)


def _beyond_the_header(source: Source, separator: str, width: int, limit: int | None) -> dict[str, Any]:
    """Return how pandas takes cells for which the header has no name: row numbers, or nothing at the end of rows.

    pandas itself refuses a row that is longer than the first, so only a long first row needs a look at all others.

    Raises:
        DataError: when a cell without a column holds text, which pandas would leave out or take for another column.
    """
    rows = islice(records(source, separator), 1, None if limit is None else limit + 1)
    first = next(rows, (0, []))
    if len(first[1]) <= width:
        return {}
    numbers, count, are_numbered, refused = set[str](), 0, True, None
    for line, cells in chain([first], rows):
        count += 1
        number = cells[0].strip()
        are_numbered = are_numbered and len(cells) == width + 1 and number.isdecimal()
        numbers.add(number)
        if refused is None and any(cell.strip() for cell in cells[width:]):
            refused = _too_long(source, separator, line, len(cells), width)
        if refused is not None and not are_numbered:
            raise refused
    if refused is None:
        return {"index_col": False}
    if len(numbers) < count:
        raise refused
    return {}


def _too_long(source: Source, separator: str, line: int, cells: int, width: int) -> FileError:
    """Return the sentence for a row with more cells than the header."""
    problem = (
        f"has {cells} cells where the header has {width}; put texts that hold a {SEPARATORS[separator]} between double "
        "quotes, or name every column in the header"
    )
    return refusal(source.name, problem, line)


def _head(source: Source, separator: str) -> list[list[str]]:
    """Return the cells of the first records."""
    rows: list[list[str]] = []
    try:
        for _, cells in records(source, separator):
            rows.append(cells)
            if len(rows) > _LOOKED_AT:
                break
    except csv.Error:
        pass
    return rows


def _is_even(head: list[list[str]]) -> bool:
    """Say whether no record has more cells than the header, one aside, which may name the rows or be empty."""
    return all(len(cells) <= len(head[0]) + 1 for cells in head)


def _typed(source: Source, options: dict[str, Any]) -> tuple[pa.Table, list[str]]:
    """Return the cells with their types, those of the first piece where the others fit them.

    Returns:
        The cells, and the columns that are text because their pieces are of several types.
    """
    schemas: list[pa.Schema] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", (pd.errors.DtypeWarning, pd.errors.ParserWarning))  # pyright: ignore
        try:
            with source.open() as file, pd.read_csv(file, chunksize=PIECE, low_memory=False, **options) as pieces:
                tables = [_noted(plain(pa.Table.from_pandas(frame)), schemas) for frame in pieces]
            if tables:
                return pa.concat_tables([like(table, tables[0].schema) for table in tables]), []
        except ARROW_REFUSALS:
            pass  # the pieces differ; read at once, a column is of one type throughout
        with source.open() as file:
            frame = pd.read_csv(file, low_memory=False, **options)
        try:
            rows = plain(pa.Table.from_pandas(frame))
        except ARROW_REFUSALS:  # numbers that are too large
            rows, _ = of_columns({str(name): [_or_gap(cell) for cell in frame[name].tolist()] for name in frame})
        return rows, [item.name for item in rows.schema if _is_mixed(item, schemas)]


def _noted(table: pa.Table, schemas: list[pa.Schema]) -> pa.Table:
    """Return a piece, and remember the types of its cells; a column of gaps is of none."""
    schemas.append(pa.schema(item for item in table.schema if table[item.name].null_count < len(table)))
    return table


def _is_mixed(column: pa.Field, schemas: list[pa.Schema]) -> bool:
    """Say whether a column is text though pieces of it are of another type."""
    types = [schema.field(column.name).type for schema in schemas if column.name in schema.names]
    return is_text(column.type) and any(not is_text(each) for each in types)


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
        lines = [line for line, _ in islice(records(source, separator), 1, None if limit is None else n + 1)]
    except csv.Error:
        return None
    return np.array(lines, np.int64) if len(lines) == n else None


def _explained(source: Source, separator: str, error: Exception) -> Exception:
    """Return the sentence for a file that is no table, with the line where it goes wrong."""
    last = 1
    try:
        width = 0
        for line, cells in records(source, separator):
            width, last = width or len(cells), line
            if len(cells) > width:
                return _too_long(source, separator, line, len(cells), width)
    except csv.Error:
        last += 1
    if isinstance(error, csv.Error) or "EOF inside string" in str(error):
        return refusal(source.name, 'a double quote opens there and never closes; add the other, or write it ""', last)
    return refusal(source.name, f"cannot be read as CSV ({first_line(error)}); check the file")
