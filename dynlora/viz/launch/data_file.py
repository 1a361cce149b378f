"""The first rows of a table someone wants to train on, and which of its columns is likely to be what."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from dynlora.errors import DataError
from dynlora.viz.kit.text import listed, one_line, plural

READ_ROWS = 200
"""Rows that are looked at; nothing else of the file is read."""

MAX_COLUMNS = 200
MAX_LINE_BYTES = 4 * 2**20
MAX_GROUP_BYTES = 2**30
"""A line, or a row group of Parquet once unpacked, larger than this is left unread."""

MAX_CLASSES = 50
TABLES = (".csv", ".tsv", ".jsonl", ".parquet")
TEXTS = ("text", "sentence", "sentence1", "question1", "question", "premise", "review", "content")
PAIRS = {"sentence1": "sentence2", "question1": "question2", "premise": "hypothesis", "question": "sentence"}
LABELS = ("label", "labels", "class", "target", "category", "sentiment", "y", "score", "rating", "stars")
GROUPS = ("domain", "source", "group", "topic", "language")


def table_of(path: Path) -> Path | None:
    """Return the table a path stands for: the file itself, or the training file of a folder; None for neither."""
    if path.is_dir():
        names = (entry for entry in sorted(path.iterdir()) if entry.suffix.lower() in TABLES)
        return next((entry for entry in names if entry.stem.split("-")[0].lower() == "train"), None)
    return path if path.suffix.lower() in TABLES and path.is_file() else None


def first_rows(path: Path) -> pd.DataFrame:
    """Return at most `READ_ROWS` rows of a CSV, JSON lines or Parquet file.

    Raises:
        DataError: when it cannot be read, or holds no rows.
    """
    readers = {".csv": _csv, ".tsv": _csv, ".jsonl": _lines, ".parquet": _parquet}
    try:
        found = readers[path.suffix.lower()](path)
    except DataError:
        raise
    except Exception as error:  # the readers raise whatever their backend raises
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        kind = path.suffix[1:]
        raise DataError(f"{path.name}: cannot be read as {kind} ({one_line(reason, 150)}); check the file") from None
    found.columns = [str(name) for name in found.columns]
    if found.empty:
        raise DataError(f"{path.name}: has no rows; add a header line and rows")
    if found.shape[1] > MAX_COLUMNS:
        raise DataError(
            f"{path.name}: {found.shape[1]:,} columns are more than {MAX_COLUMNS}; remove columns that are not needed"
        )
    if not found.columns.is_unique:
        raise DataError(f"{path.name}: two columns have the same name; rename one")
    return found


def _csv(path: Path) -> pd.DataFrame:
    with path.open("rb") as file:
        if len(file.readline(MAX_LINE_BYTES + 1)) > MAX_LINE_BYTES:
            raise DataError(f"{path.name}: its first line is longer than {MAX_LINE_BYTES // 2**20} MiB; check the file")
    return pd.read_csv(
        path, nrows=READ_ROWS, sep="\t" if path.suffix.lower() == ".tsv" else ",", keep_default_na=False,
        na_values=["", "nan", "NaN"],
    )  # fmt: skip


def _lines(path: Path) -> pd.DataFrame:
    rows: list[dict[str, Any]] = []
    with path.open("rb") as file:
        while len(rows) < READ_ROWS and (line := file.readline(MAX_LINE_BYTES + 1)):
            if len(line) > MAX_LINE_BYTES:
                raise DataError(f"{path.name}: line {len(rows) + 1} is longer than {MAX_LINE_BYTES // 2**20} MiB")
            if not line.strip():
                continue
            found = json.loads(line)
            if not isinstance(found, dict):
                raise DataError(f"{path.name}: line {len(rows) + 1} is not a JSON object; write one {{...}} per line")
            rows.append(found)
    return pd.DataFrame(rows)


def _parquet(path: Path) -> pd.DataFrame:
    import pyarrow.parquet as parquet

    with parquet.ParquetFile(path) as file:
        if file.num_row_groups and file.metadata.row_group(0).total_byte_size > MAX_GROUP_BYTES:
            raise DataError(f"{path.name}: its first row group is too large to read; write smaller row groups")
        batch = next(file.iter_batches(batch_size=READ_ROWS), None)
        return pd.DataFrame() if batch is None else batch.to_pandas()


def guessed(rows: pd.DataFrame) -> dict[str, str | None]:
    """Return which column is likely to hold what: text, text_pair, label, group_by; None where there is none."""
    names = list(rows.columns)
    text = next((name for name in _named(names, TEXTS)), None) or _longest_text(rows)
    pair = PAIRS.get(text.lower() if text else "")
    others = [name for name in names if name != text]
    label = next((name for name in _named(others, LABELS)), None) or _fewest_values(rows, others)
    return {
        "text": text,
        "text_pair": next((name for name in _named(others, (pair,) if pair else ()) if name != label), None),
        "label": label,
        "group_by": next((name for name in _named(others, GROUPS) if name != label), None),
    }


def _named(names: Sequence[str], wanted: Sequence[str]) -> list[str]:
    """Return the columns with the wanted names, in the order wanted, whatever their case."""
    lower = {name.lower(): name for name in reversed(names)}
    return [lower[name] for name in wanted if name in lower]


def _longest_text(rows: pd.DataFrame) -> str | None:
    lengths = {
        name: rows[name].astype(str).str.len().mean()
        for name in rows.columns
        if not pd.api.types.is_numeric_dtype(rows[name])
    }
    return max(lengths, key=lengths.__getitem__) if lengths else None


def _fewest_values(rows: pd.DataFrame, names: Sequence[str]) -> str | None:
    counts = {name: rows[name].astype(str).nunique() for name in names}
    several = {name: count for name, count in counts.items() if count > 1} or counts
    return min(several, key=several.__getitem__) if several else None


def groupable(rows: pd.DataFrame) -> list[str]:
    """Return the columns with few enough values to group the inputs by."""
    return [name for name in rows.columns if rows[name].astype(str).nunique() <= MAX_CLASSES]


def shown(rows: pd.DataFrame, n: int = 8) -> pd.DataFrame:
    """Return the first rows for reading: everything as text, each cell on one line and cut."""
    return pd.DataFrame({one_line(name, 60): [one_line(cell, 300) for cell in rows[name].head(n)] for name in rows})


def label_caption(rows: pd.DataFrame, label: str) -> str:
    """Say in a sentence what the label column holds in the first rows."""
    values = rows[label]
    head = f"In the first {len(rows):,} rows" if len(rows) >= READ_ROWS else f"In its {plural(len(rows), 'row')}"
    counts = values.astype(str).value_counts()
    if values.isna().any():
        return f"{head} the label is empty {plural(int(values.isna().sum()), 'time')}; fill it or remove the rows."
    if pd.api.types.is_numeric_dtype(values) and len(counts) > 20:
        return f"{head} the label is a number from {values.min():g} to {values.max():g}."
    if len(counts) < 2:
        return f"{head} the label is always {one_line(counts.index[0], 40)}, so there is nothing to learn."
    if len(counts) > MAX_CLASSES:
        return f"{head} the label has {len(counts):,} values; check that it is the label."
    return (
        f"{head} the label is " + listed([f"{one_line(name, 40)} {n:,} times" for name, n in counts.items()], 5) + "."
    )
