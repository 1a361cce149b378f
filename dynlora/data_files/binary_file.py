"""Tables that are no text: Parquet, folders of `datasets.save_to_disk`, and workbooks of Excel."""

from __future__ import annotations

import importlib.util
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet

from dynlora.data_files.opening import MAX_COLUMNS, MAX_UNPACKED, Source, checked_columns, first_line, refusal
from dynlora.data_files.table import Table, as_text_note, broken_text, is_text, of_columns, plain
from dynlora.errors import DataError
from dynlora.safe_files import read_json

MAX_GROUP_BYTES = 2**30
"""A row group of Parquet that is larger once unpacked is left unread where only a few rows are wanted."""

MAX_RATIO = 200
"""Parquet above `MAX_GROUP_BYTES` once unpacked is refused when that is more than so many times its bytes."""

BATCH_ROWS = 4096

MAX_SHEET_ROWS = 2**20
"""Rows that a sheet of Excel has at most; a file may claim any number."""

MAX_CELLS = 20_000_000
"""Cells of a sheet that are read, gaps before the last filled one of each row included."""

STATE, SPLITS = "state.json", "dataset_dict.json"
"""Files by which a folder of `datasets.save_to_disk` is known: of one table, and of several splits."""


def read_parquet(source: Source, limit: int | None = None) -> Table:
    """Return the table of a Parquet file.

    Raises:
        DataError: when it is none, or its first row group is too large for a look at a few rows.
    """
    try:
        with source.open() as opened, parquet.ParquetFile(opened) as file:
            checked_columns(source.name, file.schema_arrow.names)
            first = file.metadata.row_group(0).total_byte_size if file.num_row_groups else 0
            if limit is not None and limit <= BATCH_ROWS and first > MAX_GROUP_BYTES:
                raise refusal(source.name, "its first row group is too large to read; write smaller row groups")
            return Table.of(source.name, _unpacked(source, file, limit), None, ())
    except (DataError, MemoryError):
        raise
    except Exception as error:  # damage shows as whatever pyarrow raises
        raise refusal(source.name, f"cannot be read as Parquet ({first_line(error)}); check the file") from None


def _unpacked(source: Source, file: parquet.ParquetFile, limit: int | None) -> pa.Table:
    """Return the rows; a few bytes can stand for any number of equal rows, so what grows too far is refused."""
    tables: list[pa.Table] = []
    rows, most = 0, file.metadata.num_rows if limit is None else limit
    size, packed = 0, len(source.data) if source.data is not None else source.path.stat().st_size
    for batch in file.iter_batches(batch_size=max(1, min(BATCH_ROWS, most))):
        table = plain(
            pa.Table.from_batches([batch], file.schema_arrow)
        )  # a dictionary's texts count as often as they are used
        size += table.nbytes
        if size > max(MAX_GROUP_BYTES, MAX_RATIO * packed):
            raise refusal(source.name, f"is more than {MAX_RATIO} times as large once unpacked; write it again")
        tables.append(table.slice(0, most - rows))
        rows += len(tables[-1])
        if rows >= most:
            break
    return pa.concat_tables(tables) if tables else plain(file.schema_arrow.empty_table())


def is_saved(folder: Path) -> bool:
    """Say whether a folder was written by `datasets.save_to_disk`."""
    return (folder / STATE).is_file() or (folder / SPLITS).is_file()


def saved_splits(folder: Path) -> list[str]:
    """Return the splits of a folder of `datasets.save_to_disk`; none where it is one table."""
    names = read_json(folder / SPLITS).get("splits")
    listed = names if isinstance(names, list) else []
    return [name for name in listed if isinstance(name, str) and (folder / name / STATE).is_file() and "/" not in name]


def read_saved(folder: Path) -> Table:
    """Return the table of a folder of `datasets.save_to_disk`.

    Raises:
        DataError: when a part of it is missing or damaged.
    """
    parts = read_json(folder / STATE).get("_data_files")
    names = [part.get("filename") for part in parts or () if isinstance(part, dict)]
    try:
        tables = [pa.ipc.open_stream(pa.memory_map(str(_part(folder, name)))).read_all() for name in names]
        rows = pa.concat_tables(tables)
        rows.select([item.name for item in rows.schema if not is_text(item.type)]).validate(full=True)
        broken_text(rows)  # raises for damage; text that cannot be decoded is refused with its row by the reader
    except (DataError, MemoryError):
        raise
    except Exception as error:  # damage shows as whatever pyarrow raises
        raise refusal(
            folder.name, f"is not a complete folder of save_to_disk ({first_line(error)}); save it again"
        ) from None
    checked_columns(folder.name, rows.column_names)
    return Table.of(folder.name, plain(rows), None, ("saved by datasets.save_to_disk",))


def _part(folder: Path, name: Any) -> Path:
    """Return a part of a saved table, which is in its folder."""
    if not isinstance(name, str) or Path(name).name != name or not (folder / name).is_file():
        raise refusal(folder.name, f"names a part that is not in the folder ({str(name)[:60]}); save it again")
    return folder / name


def read_excel(source: Source, limit: int | None = None) -> Table:
    """Return the first sheet of a workbook; rows are counted as Excel counts them.

    Raises:
        DataError: when openpyxl is missing, it is no workbook, or it is too large once unpacked.
    """
    if importlib.util.find_spec("openpyxl") is None:
        remedy = "run pip install 'dynlora[excel]', or save it as CSV"
        raise refusal(source.name, f"Excel files need the package openpyxl; {remedy}")
    from openpyxl import load_workbook

    _check_unpacked(source)
    try:
        with source.open() as opened:
            book = load_workbook(opened, read_only=True, data_only=True, keep_links=False)
            book.worksheets[0].reset_dimensions()  # what the sheet claims to span may be anything
            sheet, others = book.worksheets[0], len(book.worksheets) - 1
            cells = list(_filled(source.name, sheet.iter_rows(values_only=True), limit))
            notes = [f"sheet {sheet.title!r}" + (f", the first of {others + 1}" if others else "")]
    except (DataError, MemoryError):
        raise
    except Exception as error:  # damage shows as whatever openpyxl raises
        raise refusal(source.name, f"cannot be read as Excel ({first_line(error)}); save it again") from None
    return _of_cells(source.name, cells, notes)


def _check_unpacked(source: Source) -> None:
    """Refuse a workbook, which is a zip, that is too large once unpacked."""
    try:
        with source.open() as opened, zipfile.ZipFile(opened) as packed:
            size = sum(member.file_size for member in packed.infolist())
    except (zipfile.BadZipFile, OSError, ValueError):
        raise refusal(source.name, "is not an Excel workbook (.xlsx); save it again, or as CSV") from None
    if size > MAX_UNPACKED:
        limit = f"{MAX_UNPACKED // 2**20} MiB"
        raise refusal(source.name, f"has more than {limit} once unpacked; save the table as CSV")


def _filled(name: str, rows: Iterator[Sequence[Any]], limit: int | None) -> Iterator[tuple[int, list[Any]]]:
    """Yield (row of the sheet, cells) of rows that are not empty: the header, and at most `limit` more."""
    count = filled = 0
    for number, cells in enumerate(rows, 1):
        if len(cells) > MAX_COLUMNS:
            checked_columns(name, [str(cell) for cell in cells], number, "row")
        if number > MAX_SHEET_ROWS:
            raise refusal(name, f"has a row beyond the {MAX_SHEET_ROWS:,} of a sheet; save it again")
        width = max((place for place, cell in enumerate(cells, 1) if cell is not None), default=0)
        filled += width
        if filled > MAX_CELLS:
            raise refusal(name, f"has more than {MAX_CELLS:,} cells; save the table as CSV")
        if width:
            yield number, list(cells[:width])
            count += 1
        if limit is not None and count > limit:
            return


def _of_cells(name: str, cells: list[tuple[int, list[Any]]], notes: list[str]) -> Table:
    """Return the table of a sheet: its first row that is not empty names the columns."""
    if not cells:
        raise refusal(name, "its first sheet is empty; put a header and rows there")
    (_, header), *rows = cells
    while header and header[-1] is None:
        header.pop()
    names = [f"Unnamed: {place}" if cell is None else str(cell) for place, cell in enumerate(header)]
    checked_columns(name, names)
    for number, row in rows:
        if any(cell is not None for cell in row[len(names) :]):
            raise refusal(name, f"has more cells than the header names ({len(names)}); name the column", number, "row")
    table, mixed = of_columns(
        {each: [_cell(row[place]) if place < len(row) else None for _, row in rows] for place, each in enumerate(names)}
    )
    return Table(
        (name,),
        table,
        np.zeros(len(rows), np.int64),
        np.array([n for n, _ in rows], np.int64),
        "row",
        (*notes, *as_text_note(mixed)),
    )


def _cell(value: Any) -> Any:
    """Return a cell as JSON could hold it: dates as text, an empty text as a gap."""
    if value is None or isinstance(value, bool | int | float):
        return value
    text = value.isoformat() if hasattr(value, "isoformat") else str(value)
    return text or None
