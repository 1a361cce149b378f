"""A table of a data file, and CSV and TSV: separator, lines, quotes and line breaks inside of cells are found."""

from __future__ import annotations

import csv
import io
import json
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from dynlora.data_files.opening import (
    DROP_LONG_ROWS,
    MAX_LINE_BYTES,
    LongRowError,
    Source,
    as_utf8,
    checked_columns,
    first_line,
    refusal,
)
from dynlora.text import clean_text, printable

ARROW_REFUSALS = (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, OverflowError)
"""What pyarrow raises for values of several types in a column, for nesting it cannot join, for too large integers."""

ROW, LINE = "row", "line"
"""How places are counted: in lines of a text file, or in rows of a table without lines; both from 1."""


@dataclass(frozen=True)
class Table:
    """Rows of one file, or of several shards in order.

    Attributes:
        names: of the files.
        rows: the cells.
        file: position in `names` of each row's file, (n,).
        place: line or row of the file in which each row begins, counted from 1, (n,).
        unit: `LINE` or `ROW`.
        notes: how the file was understood, in words: encoding, separator.
        guess: encoding that was guessed, because the bytes do not say theirs; empty where it is known.
        left_out: lines of rows that were left out, because they have more cells than the header.
    """

    names: tuple[str, ...]
    rows: pa.Table
    file: np.ndarray
    place: np.ndarray
    unit: str = ROW
    notes: tuple[str, ...] = field(default=())
    guess: str = ""
    left_out: tuple[int, ...] = ()

    def __len__(self) -> int:
        """Return the number of rows."""
        return self.rows.num_rows

    @classmethod
    def of(
        cls, name: str, rows: pa.Table, place: Sequence[int] | np.ndarray | None, notes: Sequence[str], guess: str = ""
    ) -> Table:
        """Return the table of one file; rows are counted where no lines are known."""
        n = rows.num_rows
        known = place is not None and len(place) == n
        places = np.asarray(place if known else np.arange(1, n + 1), np.int64)
        return cls((name,), rows, np.zeros(n, np.int64), places, LINE if known else ROW, tuple(notes), guess)

    def head(self, n: int) -> Table:
        """Return the first n rows."""
        if len(self) <= n:
            return self
        return replace(self, rows=self.rows.slice(0, n), file=self.file[:n], place=self.place[:n])

    @property
    def columns(self) -> list[str]:
        """Names of the columns."""
        return list(self.rows.column_names)

    def values(self, column: str) -> list[Any]:
        """Return a column as Python values; None where a cell is empty."""
        return self.rows.column(column).to_pylist()

    def class_names(self, column: str) -> list[str] | None:
        """Return what whole numbers of a column mean, where the file says so as the `datasets` library does."""
        try:
            features = json.loads((self.rows.schema.metadata or {}).get(b"huggingface", b"{}"))["info"]["features"]
            names = features[column]["names"]
        except (ValueError, KeyError, TypeError, RecursionError):
            return None
        return [clean_text(str(name)) for name in names] if isinstance(names, list) else None

    def where(self, row: int) -> str:
        """Return the place of a row in words: `rows.csv, line 5`."""
        return f"{self.names[int(self.file[row])]}, {self.unit} {int(self.place[row]):,}"


def broken_text(rows: pa.Table) -> tuple[int, str] | None:
    """Return row and column of the first cell, also inside of lists and objects, that is no UTF-8; None for none.

    `of_columns` writes a lone surrogate, half of a character, as such a cell, so that one check finds both.

    Raises:
        pyarrow.ArrowInvalid: when the table is damaged in another way.
    """
    for name, column in zip(rows.column_names, rows.columns, strict=True):
        before = 0
        for chunk in column.chunks:
            try:
                chunk.validate(full=True)
            except pa.ArrowInvalid as error:
                if "UTF8" not in str(error):
                    raise
                return before + _broken_row(chunk), name
            before += len(chunk)
    return None


_BLOCK = 1000
"""Rows of a damaged column that are tried at once to find the first that is no text."""


def _broken_row(cells: pa.Array) -> int:
    """Return the first row of cells that holds text that is no UTF-8."""
    start = next(start for start in range(0, len(cells), _BLOCK) if not _is_readable(cells.slice(start, _BLOCK)))
    return next(row for row in range(start, len(cells)) if not _is_readable(cells.slice(row, 1)))


def _is_readable(cells: pa.Array) -> bool:
    """Say whether all texts in some cells are UTF-8."""
    try:
        cells.to_pylist()
    except UnicodeDecodeError:
        return False
    return True


def joined(tables: Sequence[Table]) -> Table:
    """Return the rows of several files in order; a column that one lacks is empty there.

    Raises:
        pyarrow.ArrowInvalid: when a column is of another type in one of them.
    """
    if len(tables) == 1:
        return tables[0]
    rows = pa.concat_tables([table.rows for table in tables], promote_options="default")
    files = [np.full(len(table), position) for position, table in enumerate(tables)]
    notes = tuple(dict.fromkeys(note for table in tables for note in table.notes))
    return Table(
        tuple(table.names[0] for table in tables),
        rows,
        np.concatenate(files),
        np.concatenate([table.place for table in tables]),
        tables[0].unit,
        notes,
        next((table.guess for table in tables if table.guess), ""),
        tuple(line for table in tables for line in table.left_out),
    )


def plain(rows: pa.Table) -> pa.Table:
    """Return cells without what other libraries wrote into the schema, class names aside, and no dictionaries."""
    metadata = {key: value for key, value in (rows.schema.metadata or {}).items() if key == b"huggingface"}
    fields = [
        pa.field(item.name, item.type.value_type) if pa.types.is_dictionary(item.type) else item.remove_metadata()
        for item in rows.schema
    ]
    return rows.cast(pa.schema(fields, metadata=metadata or None))


def is_text(kind: pa.DataType) -> bool:
    """Say whether a type is that of texts."""
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def like(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """Return a piece of a file with the columns and types of the first piece.

    Raises:
        pyarrow.ArrowInvalid: when it does not fit: a cast from a number to a text, or from a number to a yes or no,
            would write cells otherwise than the file does.
    """
    names = set(table.column_names)  # the property makes a new list each time
    unknown = names - set(schema.names)
    if unknown:
        raise pa.ArrowInvalid(f"new columns {unknown}")
    for item in table.schema:
        differs = _family(item.type) != _family(schema.field(item.name).type)
        if differs and table[item.name].null_count < len(table):
            raise pa.ArrowInvalid(f"column {item.name} is of another type in some pieces")
    empty = {item.name: pa.nulls(len(table), item.type) for item in schema if item.name not in names}
    columns = [empty[item.name] if item.name in empty else table[item.name].cast(item.type) for item in schema]
    return pa.table(columns, schema=schema)


def _family(kind: pa.DataType) -> str:
    """Return what values of a type are: a cast inside of a family keeps them or fails."""
    if is_text(kind):
        return "text"
    return "moment" if pa.types.is_temporal(kind) else "flag" if pa.types.is_boolean(kind) else "number"


def of_columns(columns: Mapping[str, Sequence[Any]]) -> tuple[pa.Table, list[str]]:
    """Return the table of columns of plain values, and the names of those that are text as their values differ in type.

    A column of one type keeps it; one of several is text, lists and objects as JSON.
    """
    arrays, mixed = {}, []
    for name, values in columns.items():
        try:
            arrays[name] = pa.array(values)
        except UnicodeEncodeError:
            arrays[name] = _texts(values)
        except ARROW_REFUSALS:
            arrays[name] = _texts(values)
            mixed.append(name)
    return pa.table(arrays), mixed


def _texts(values: Sequence[Any]) -> pa.Array:
    """Return values as texts; one with a lone surrogate is no UTF-8 there, as `broken_text` finds it."""
    cells = [None if value is None else _as_text(value).encode("utf-8", "surrogatepass") for value in values]
    return pa.array(cells, pa.binary()).view(pa.string())


def _as_text(value: Any) -> str:
    """Return one value as text."""
    return json.dumps(value, ensure_ascii=False, default=str) if isinstance(value, list | dict) else str(value)


def as_text_note(names: Sequence[str]) -> tuple[str, ...]:
    """Return the note on columns that are text because their cells are of several types; none for no columns."""
    words = ", ".join(printable(name, 40) for name in names[:5]) + (f" and {len(names) - 5} more" * (len(names) > 5))
    return (f"{words} as text, because cells are of several types",) if names else ()


GAPS: dict[str, Any] = {"keep_default_na": False, "na_values": ["", "nan", "NaN"]}
"""A text or class may be called NA, None or null; an empty cell, or a number that is none, is a gap."""

PIECE = 10_000
SEPARATORS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "vertical bar"}
REPAIR = f"data.repair=[{DROP_LONG_ROWS}]"
_LOOKED_AT = 50
"""Records that are looked at to find the separator."""


def read_csv(source: Source, limit: int | None = None) -> Table:
    """Return the table of a CSV or TSV file.

    Args:
        source: its bytes.
        limit: most rows that are read; None for all.

    Raises:
        DataError: in one sentence with the line.
    """
    source = as_utf8(source)
    separator, width = _layout(source)
    if source.drops_long_rows:
        return _without_long_rows(source, separator, width, limit)
    return _read(source, separator, width, limit)


def _read(source: Source, separator: str, width: int, limit: int | None) -> Table:
    """Return the table of a file in UTF-8, of which separator and number of columns are known."""
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


def _without_long_rows(source: Source, separator: str, width: int, limit: int | None) -> Table:
    """Return the table without the rows in which a cell without a column holds text."""
    lines, left_out, text = list[int](), list[int](), io.StringIO()
    writer = csv.writer(text, delimiter=separator)
    try:
        for line, cells in records(source, separator):
            if any(cell.strip() for cell in cells[width:]):
                left_out.append(line)
            else:
                writer.writerow(cells[:width])
                lines.append(line)
    except csv.Error as error:
        raise _explained(source, separator, error) from None
    table = _read(replace(source, data=text.getvalue().encode()), separator, width, limit)
    return replace(table, place=np.array(lines[1 : len(table) + 1], np.int64), left_out=tuple(left_out))


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


def _too_long(source: Source, separator: str, line: int, cells: int, width: int) -> LongRowError:
    """Return the sentence for a row with more cells than the header."""
    problem = (
        f"has {cells} cells where the header has {width}; put texts that hold a {SEPARATORS[separator]} between double "
        "quotes, or name every column in the header"
    )
    return LongRowError(*refusal(source.name, f"{problem}; or leave such rows out with {REPAIR}", line).args)


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
