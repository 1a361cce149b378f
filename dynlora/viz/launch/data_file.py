"""The first rows of a table someone wants to train on, read as training reads it, and what its columns hold."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from dynlora.config import GENERATIVE
from dynlora.data_files import binary_file, reader
from dynlora.data_files.columns import conversation, guessed, guessed_kind, guessed_written, is_conversation, plain
from dynlora.data_files.opening import ending_of, is_table
from dynlora.errors import DataError
from dynlora.text import listed, one_line, plural

KINDS = {
    "labelled": "Text and label",
    "completion": "Prompt and completion",
    "messages": "Conversations",
    "text": "Plain text",
}
"""Words for each kind of data of `data_files.columns.KINDS`."""

ROLES: Mapping[str, Sequence[str]] = {
    "labelled": ("text", "text_pair", "label", "group_by"),
    "completion": ("prompt", "completion", "answer", "group_by"),
    "messages": ("messages", "answer", "group_by"),
    "text": ("text", "group_by"),
}
"""Settings of section `data` that name the columns of each kind."""

ROLE_WORDS = {
    "text": "Text column",
    "text_pair": "Second text column",
    "label": "Label column",
    "group_by": "Input groups",
    "prompt": "Prompt column",
    "completion": "Completion column",
    "messages": "Messages column",
    "answer": "Answer column",
}
"""Labels of the pickers of columns."""

OPTIONAL = ("text_pair", "answer")
"""Columns that need not be there."""

LOSS_ON: Mapping[str, Sequence[str]] = {
    "completion": ("completion", "all"),
    "messages": ("completion", "assistant", "all"),
}
"""Values of `data.loss_on` that fit a kind, the default first."""

LOSS_WORDS = {
    "completion": {"completion": "Completion", "all": "Prompt and completion"},
    "messages": {"completion": "Last answer", "assistant": "All assistant turns", "all": "All messages"},
}
"""What each of them is called."""


def is_written(kind: str) -> bool:
    """Say whether a kind of data is for a language model: nothing is labelled, texts are to be written."""
    return kind != "labelled"


def task_of(kind: str) -> dict[str, str]:
    """Return the task of a kind of data by dotted key; none for labels, which say it themselves."""
    return {"data.task": GENERATIVE[0]} if is_written(kind) else {}


def of_start(start: Mapping[str, Any]) -> str | None:
    """Return the kind of data that starting values have; None where they leave it open."""
    if start.get("data.messages"):
        return "messages"
    if start.get("data.completion") or start.get("data.prompt"):
        return "completion"
    if start.get("data.task") in GENERATIVE:
        return "completion" if start.get("data.text_pair") else "text" if start.get("data.text") else None
    return "labelled" if start.get("data.text") else None


def of_columns(names: Sequence[str]) -> str:
    """Return the kind of a built-in data set by its columns."""
    if "messages" in names:
        return "messages"
    if "completion" in names:
        return "completion"
    return "labelled" if "label" in names else "text"


def caption(kind: str, rows: pd.DataFrame, values: Mapping[str, Any]) -> str:
    """Say in a sentence what the columns of texts to be written hold in the first rows.

    Args:
        kind: of the data.
        rows: the first rows.
        values: the chosen columns by dotted key.
    """
    head = f"In the first {plural(len(rows), 'row')}"
    if kind == "messages":
        return f"{head} {_said_of_conversations(rows, str(values['data.messages']))}."
    columns = {ROLE_WORDS[role].removesuffix(" column").lower(): values.get(f"data.{role}") for role in ROLES[kind]}
    sizes = [
        f"the {word} has {rows[name].astype(str).str.len().mean():,.0f} characters on average"
        for word, name in columns.items()
        if name in rows and word in ("prompt", "completion", "text")
    ]
    return f"{head} {' and '.join(sizes)}."


def _said_of_conversations(rows: pd.DataFrame, name: str) -> str:
    """Return how long conversations are, and who speaks."""
    lengths, faulty = [], 0
    for cell in rows.get(name, []):
        try:
            lengths.append(conversation(plain(cell)))
        except ValueError:
            faulty += 1
    if not lengths:
        return "no cell of the column is a list of messages with role and content"
    sizes = sorted({len(turns) for turns in lengths})
    span = f"{sizes[0]}" if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]}"
    roles = dict.fromkeys(one_line(turn["role"], 20) for turns in lengths for turn in turns)
    bad = f"; {plural(faulty, 'cell')} cannot be read as messages" if faulty else ""
    return f"a conversation has {span} messages of {listed(list(roles), 5)}{bad}"


def as_text(value: Any) -> str:
    """Return a cell for reading: a conversation as its turns, each after its role."""
    try:
        return " ⏎ ".join(f"{turn['role']}: {turn['content']}" for turn in conversation(plain(value)))
    except ValueError:
        return str(value)


__all__ = [
    "first_rows",
    "groupable",
    "guessed",
    "guessed_kind",
    "guessed_written",
    "has_encoding",
    "label_caption",
    "preview_rows",
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
    """Return a column's name with its first different values, for a picker."""
    cells = rows[name].dropna()
    if len(cells) and not isinstance(cells.iloc[0], str) and is_conversation(cells.iloc[0]):
        return f"{one_line(name, 40)} (messages)"
    values = [one_line(value, 24) for value in cells.astype(str).unique()[:n]]
    return f"{one_line(name, 40)} ({', '.join(values)})" if values else f"{one_line(name, 40)} (empty)"


def preview_rows(rows: pd.DataFrame, n: int = 8) -> pd.DataFrame:
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
