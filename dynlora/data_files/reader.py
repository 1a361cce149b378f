"""The one reader: a file, or a folder with two sides, becomes tables, those too that are no text."""

from __future__ import annotations

import importlib.util
import re
import zipfile
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet

from dynlora.data_files import json_file
from dynlora.data_files.opening import (
    DROP_LONG_ROWS,
    MAX_COLUMNS,
    MAX_UNPACKED,
    NO_TEXT,
    Source,
    as_utf8,
    checked_columns,
    ending_of,
    endings_text,
    first_line,
    is_table,
    opened,
    refusal,
    stem_of,
    to_add,
)
from dynlora.data_files.table import Table, as_text_note, broken_text, is_text, joined, of_columns, plain, read_csv
from dynlora.errors import DataError
from dynlora.safe_files import kind_of_file, read_json, why_not_a_file
from dynlora.text import printable

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


HELD_OUT_NAMES = ("validation", "test", "dev", "valid", "eval")
"""Names of the held-out side, the first that is there wins."""

SHARD = re.compile(r"-\d+-of-\d+$")

READERS: dict[str, Callable[[Source, int | None], Table]] = {
    ".csv": read_csv,
    ".tsv": read_csv,
    ".json": json_file.read,
    ".jsonl": json_file.read,
    ".parquet": read_parquet,
    ".xlsx": read_excel,
}


@dataclass(frozen=True)
class Sides:
    """What is in a file or folder.

    Attributes:
        train: the training table, or the only one.
        held_out: the held-out table; None where the rows have still to be split.
    """

    train: Table
    held_out: Table | None = None


def read_table(
    path: Path, limit: int | None = None, encoding: str | None = None, repairs: Collection[Any] = ()
) -> Table:
    """Return the table of one file.

    Args:
        path: of the file; its ending says the format.
        limit: most rows that are read, for a look at the first; None for all.
        encoding: of a text file, one of `encodings.ENCODINGS`; None: found from its bytes.
        repairs: of which reading carries out `DROP_LONG_ROWS`.

    Raises:
        DataError: one sentence with the file, the line where there is one, the rule and the remedy.
    """
    check_table(path)
    source = replace(opened(path, encoding), drops_long_rows=DROP_LONG_ROWS in repairs)
    return _checked(path.name, READERS[ending_of(path)](source, limit))


def check_table(path: Path) -> None:
    """Refuse what is no file, or none whose ending names a table; nothing is read.

    Raises:
        DataError: one sentence with the file, the rule and the remedy.
        OSError: when the system refuses to look.
    """
    if problem := why_not_a_file(path):
        raise refusal(str(path), problem)
    if not is_table(path):
        raise refusal(path.name, f"the ending must be one of {endings_text()}; convert the file")


def sent_table(name: str, data: bytes) -> Table:
    """Return the table of a file that was sent and is nowhere, read as `read_table` reads one.

    Args:
        name: of the file; its ending says the format, and it is not packed.
        data: its bytes.

    Raises:
        DataError: one sentence with the file, the line where there is one, the rule and the remedy.
    """
    source = _sent(name, data)
    if (ending := source.path.suffix.lower()) not in READERS:
        raise refusal(source.name, f"the ending must be one of {', '.join(READERS)}; convert the file")
    return _checked(source.name, READERS[ending](source, None))


def sent_text(name: str, data: bytes) -> str:
    """Return the text of a file that was sent and is nowhere, whatever its encoding.

    Raises:
        DataError: when it is no text.
    """
    return as_utf8(_sent(name, data)).whole().decode("utf-8-sig")


def _sent(name: str, data: bytes) -> Source:
    """Return what was sent, which must not be empty."""
    source = Source(Path(name), data)
    if not data:
        raise refusal(source.name, f"the file is empty; {to_add(source.path)}")
    return source


def _checked(name: str, table: Table) -> Table:
    """Return a table that has rows, texts that can be used, and no two columns of one name."""
    if len(table) == 0:
        raise refusal(name, "has a header but no rows; add rows")
    checked_columns(name, table.columns)
    if (broken := broken_text(table.rows)) is not None:
        row, column = broken
        raise refusal(name, f"the cell of column {printable(column, 40)} {NO_TEXT}", int(table.place[row]), table.unit)
    return table


def read_sides(
    path: Path, limit: int | None = None, encoding: str | None = None, repairs: Collection[Any] = ()
) -> Sides:
    """Return the tables of a file, of a folder with a training file, or of a folder of `datasets.save_to_disk`.

    Args:
        path: of the file or folder.
        limit: most rows that are read of each file; None for all.
        encoding: of text files, one of `encodings.ENCODINGS`; None: found from their bytes.
        repairs: of which reading carries out `DROP_LONG_ROWS`.

    Raises:
        DataError: when nothing readable is there.
    """
    check_sides(path)
    if not path.is_dir():
        return Sides(read_table(path, limit, encoding, repairs))
    if is_saved(path):
        return _saved_sides(path)
    files = files_of(path)
    if "train" not in files:
        raise refusal(
            path.name,
            "has no train.csv, train.jsonl or train.parquet; name the files train.* and validation.*, or give one file",
        )
    held_out = next((files[name] for name in HELD_OUT_NAMES if name in files), None)
    train = _together(files["train"], limit, encoding, repairs)
    return Sides(train, None if held_out is None else _together(held_out, limit, encoding, repairs))


def check_sides(path: Path) -> None:
    """Refuse what is neither a table's file nor a folder; nothing is read.

    Raises:
        DataError: one sentence with the file, the rule and the remedy.
        OSError: when the system refuses to look.
    """
    if kind_of_file(path) != "a folder":
        check_table(path)


def _saved_sides(path: Path) -> Sides:
    """Return the tables of a folder of `datasets.save_to_disk`."""
    splits = saved_splits(path)
    if not splits:
        return Sides(_checked(path.name, read_saved(path)))
    if "train" not in splits:
        raise refusal(path.name, f"has the splits {', '.join(splits[:5])} but no train; name one of them train")
    held_out = next((name for name in HELD_OUT_NAMES if name in splits), None)
    tables = [_checked(split, read_saved(path / split)) for split in ("train", held_out) if split]
    return Sides(*tables)


def files_of(folder: Path) -> dict[str, list[Path]]:
    """Return the tables of a folder by split; shards such as train-00000-of-00002 are together.

    Raises:
        DataError: when a split is there twice.
    """
    files: dict[str, list[Path]] = {}
    for path in sorted(folder.iterdir()):
        if is_table(path) and not path.name.startswith("."):
            files.setdefault(stem_of(path).split("-")[0].lower(), []).append(path)
    for split in ("train", *HELD_OUT_NAMES):
        paths = files.get(split, [])
        if len(paths) > 1 and not all(SHARD.search(stem_of(path)) for path in paths):
            names = " and ".join(path.name for path in paths[:3])
            raise refusal(folder.name, f"has {names}; keep one of them, or give that file")
    return files


def _together(paths: list[Path], limit: int | None, encoding: str | None, repairs: Collection[Any]) -> Table:
    """Return the rows of one file, or of several shards in order."""
    try:
        return joined([read_table(path, limit, encoding, repairs) for path in paths])
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        problem = f"has other columns or types than the other shards ({first_line(error)}); check the shards"
        raise refusal(paths[0].name, problem) from None
