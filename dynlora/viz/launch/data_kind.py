"""Kinds of data as the Launch form offers them: what each is called, its columns, and what its loss can be on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from dynlora.config import GENERATIVE
from dynlora.data_files.conversations import conversation, plain
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
    found, faulty = [], 0
    for cell in rows.get(name, []):
        try:
            found.append(conversation(plain(cell)))
        except ValueError:
            faulty += 1
    if not found:
        return "no cell of the column is a list of messages with role and content"
    sizes = sorted({len(turns) for turns in found})
    span = f"{sizes[0]}" if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]}"
    roles = dict.fromkeys(one_line(turn["role"], 20) for turns in found for turn in turns)
    bad = f"; {plural(faulty, 'cell')} cannot be read as messages" if faulty else ""
    return f"a conversation has {span} messages of {listed(list(roles), 5)}{bad}"


def as_text(value: Any) -> str:
    """Return a cell for reading: a conversation as its turns, each after its role."""
    try:
        return " ⏎ ".join(f"{turn['role']}: {turn['content']}" for turn in conversation(plain(value)))
    except ValueError:
        return str(value)
