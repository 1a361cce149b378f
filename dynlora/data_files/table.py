"""A table of rows as it was read, and where in its files each row is."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa

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
    """

    names: tuple[str, ...]
    rows: pa.Table
    file: np.ndarray
    place: np.ndarray
    unit: str = ROW
    notes: tuple[str, ...] = field(default=())
    guess: str = ""

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
