"""The first rows of a table someone wants to train on, read as training reads it, and what its columns hold."""

from __future__ import annotations

import math
from itertools import islice
from pathlib import Path

import pandas as pd

from dynlora.data_files import binary_file, reader
from dynlora.data_files.columns import guessed, guessed_kind, guessed_written
from dynlora.data_files.conversations import is_conversation
from dynlora.data_files.opening import ending_of, is_table
from dynlora.errors import DataError
from dynlora.text import listed, one_line, plural
from dynlora.viz.kit import strong_language
from dynlora.viz.launch.data_kind import as_text

__all__ = [
    "first_rows",
    "groupable",
    "guessed",
    "guessed_kind",
    "guessed_written",
    "has_encoding",
    "label_caption",
    "shown",
    "table_of",
    "why_no_table",
    "with_values",
]

READ_ROWS = 200
"""Rows of the preview."""

MAX_CLASSES = 50


def table_of(path: Path) -> Path | None:
    """Return the table a path stands for: the file itself, or the training file of a folder; None for neither.

    A folder of `datasets.save_to_disk` stands for itself.
    """
    if path.is_dir():
        if binary_file.is_saved(path):
            return path
        return next((entry for entry in reader.files_of(path).get("train", [])), None)
    return path if is_table(path) and path.is_file() else None


def why_no_table(folder: Path) -> str:
    """Return why no table of a folder can be trained on, as training says it."""
    try:
        reader.read_sides(folder, 1)
    except DataError as error:
        return str(error)
    return f"{folder.name}: has no table to pick columns of"  # the folder has changed meanwhile


def has_encoding(path: Path) -> bool:
    """Say whether a table is a text file, whose encoding may be given."""
    return path.is_file() and ending_of(path) in (".csv", ".tsv", ".json", ".jsonl")


def first_rows(path: Path, encoding: str | None = None) -> pd.DataFrame:
    """Return at most `READ_ROWS` rows of a table.

    Args:
        path: of the table.
        encoding: of a text file; None: found from its bytes.

    Raises:
        DataError: when it cannot be read, or holds no rows.
    """
    rows = reader.read_sides(path, READ_ROWS, encoding).train.rows.slice(0, READ_ROWS)
    return rows.to_pandas()


def groupable(rows: pd.DataFrame) -> list[str]:
    """Return the columns with few enough values to group the inputs by."""
    return [name for name in rows.columns if rows[name].astype(str).nunique() <= MAX_CLASSES]


def with_values(rows: pd.DataFrame, name: str, n: int = 3) -> str:
    """Return a column's name with its first different values, for a picker; those with strong language are skipped."""
    cells = rows[name].dropna()
    if len(cells) and not isinstance(cells.iloc[0], str) and is_conversation(cells.iloc[0]):
        return f"{one_line(name, 40)} (messages)"
    fitting = (value for value in cells.astype(str).unique() if not strong_language.is_strong(value))
    values = [one_line(value, 24) for value in islice(fitting, n)]
    return f"{one_line(name, 40)} ({', '.join(values)})" if values else f"{one_line(name, 40)} (empty)"


def shown(rows: pd.DataFrame, n: int = 8) -> pd.DataFrame:
    """Return the first rows for reading: everything as text, each cell on one line and cut."""
    return pd.DataFrame(
        {one_line(name, 60): [one_line(_cell(cell), 300) for cell in rows[name].head(n)] for name in rows}
    )


def _cell(value: object) -> object:
    """Return a cell for reading; a list of messages as a conversation, a cell without a value as nothing."""
    if value is None or value is pd.NA or (isinstance(value, float) and math.isnan(value)):
        return ""
    return value if isinstance(value, str | int | float) else as_text(value)


def label_caption(rows: pd.DataFrame, label: str, *, is_repaired: bool = False) -> str:
    """Say in a sentence what the label column holds in the first rows of the file.

    Args:
        rows: of the file, as `first_rows` returns them.
        label: name of the column.
        is_repaired: repairs were chosen, so training reads other rows than these.
    """
    values = rows[label]
    head = f"In the first {len(rows):,} rows" if len(rows) >= READ_ROWS else f"In its {plural(len(rows), 'row')}"
    head += ", before the repairs," if is_repaired else ""
    counts = values.astype(str).value_counts()
    if values.isna().any():
        return f"{head} the label is empty {plural(int(values.isna().sum()), 'time')}."
    if pd.api.types.is_numeric_dtype(values) and len(counts) > 20:
        return f"{head} the label is a number from {values.min():g} to {values.max():g}."
    if len(counts) < 2:
        return f"{head} the label is always {one_line(counts.index[0], 40)}, so there is nothing to learn."
    if len(counts) > MAX_CLASSES:
        return f"{head} the label has {len(counts):,} values; check that it is the label."
    return (
        f"{head} the label is " + listed([f"{one_line(name, 40)} {n:,} times" for name, n in counts.items()], 5) + "."
    )
