"""The one reader: a file, or a folder with two sides, becomes tables; check, preview and training all read here."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from dynlora.data_files import binary_file, json_file
from dynlora.data_files.opening import (
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
from dynlora.data_files.table import Table, broken_text, joined, read_csv
from dynlora.safe_files import kind_of_file, why_not_a_file
from dynlora.text import printable

HELD_OUT_NAMES = ("validation", "test", "dev", "valid", "eval")
"""Names of the held-out side, the first that is there wins."""

SHARD = re.compile(r"-\d+-of-\d+$")

READERS: dict[str, Callable[[Source, int | None], Table]] = {
    ".csv": read_csv,
    ".tsv": read_csv,
    ".json": json_file.read,
    ".jsonl": json_file.read,
    ".parquet": binary_file.read_parquet,
    ".xlsx": binary_file.read_excel,
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


def read_table(path: Path, limit: int | None = None, encoding: str | None = None) -> Table:
    """Return the table of one file.

    Args:
        path: of the file; its ending says the format.
        limit: most rows that are read, for a look at the first; None for all.
        encoding: of a text file, one of `encodings.ENCODINGS`; None: found from its bytes.

    Raises:
        DataError: one sentence with the file, the line where there is one, the rule and the remedy.
    """
    check_table(path)
    return _checked(path.name, READERS[ending_of(path)](opened(path, encoding), limit))


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


def read_sides(path: Path, limit: int | None = None, encoding: str | None = None) -> Sides:
    """Return the tables of a file, of a folder with a training file, or of a folder of `datasets.save_to_disk`.

    Args:
        path: of the file or folder.
        limit: most rows that are read of each file; None for all.
        encoding: of text files, one of `encodings.ENCODINGS`; None: found from their bytes.

    Raises:
        DataError: when nothing readable is there.
    """
    check_sides(path)
    if not path.is_dir():
        return Sides(read_table(path, limit, encoding))
    if binary_file.is_saved(path):
        return _saved_sides(path)
    files = files_of(path)
    if "train" not in files:
        raise refusal(
            path.name,
            "has no train.csv, train.jsonl or train.parquet; name the files train.* and validation.*, or give one file",
        )
    held_out = next((files[name] for name in HELD_OUT_NAMES if name in files), None)
    train = _together(files["train"], limit, encoding)
    return Sides(train, None if held_out is None else _together(held_out, limit, encoding))


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
    splits = binary_file.saved_splits(path)
    if not splits:
        return Sides(_checked(path.name, binary_file.read_saved(path)))
    if "train" not in splits:
        raise refusal(path.name, f"has the splits {', '.join(splits[:5])} but no train; name one of them train")
    held_out = next((name for name in HELD_OUT_NAMES if name in splits), None)
    tables = [_checked(split, binary_file.read_saved(path / split)) for split in ("train", held_out) if split]
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


def _together(paths: list[Path], limit: int | None, encoding: str | None) -> Table:
    """Return the rows of one file, or of several shards in order."""
    try:
        return joined([read_table(path, limit, encoding) for path in paths])
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        problem = f"has other columns or types than the other shards ({first_line(error)}); check the shards"
        raise refusal(paths[0].name, problem) from None
