"""Which column of a table is what: text, second text, label, group; and conversations, lists of turns."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from dynlora.errors import DataError
from dynlora.text import is_text

ROLES = {"human": "user", "gpt": "assistant", "bot": "assistant", "model": "assistant"}
"""Other names of roles, and what chat templates call them."""

FIRST, ASKS, SAYS = ("system", "developer"), ("user", "tool"), ("assistant",)
"""Roles of instructions, of what is answered, and of who answers."""

Turn = dict[str, str]


def conversation(value: Any) -> list[Turn]:
    """Return a cell as turns, {role, content} each; a cell of text is read as JSON.

    Raises:
        ValueError: saying in words what the cell is instead.
    """
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            raise ValueError("is text that is not JSON") from None
    if not isinstance(value, Sequence) or isinstance(value, str) or not value:
        raise ValueError("is not a list of messages" if value else "is empty")
    return [_turn(item) for item in value]


def is_conversation(value: Any) -> bool:
    """Say whether a cell, also one of a pandas frame, is a conversation."""
    try:
        return bool(conversation(plain(value)))
    except ValueError:
        return False


def plain(value: Any) -> Any:
    """Return a cell of a pandas frame, where a list is an array, as a list."""
    return value.tolist() if hasattr(value, "tolist") else value


def _turn(item: Any) -> Turn:
    """Return one message."""
    if not isinstance(item, dict):
        raise ValueError("has a message that is not an object with role and content")
    role, content = item.get("role", item.get("from")), item.get("content", item.get("value"))
    if not isinstance(role, str) or not isinstance(content, str):
        raise ValueError("has a message without role and content")
    if not (is_text(role) and is_text(content)):
        raise ValueError("has a message that is not valid text (half of a surrogate pair)")
    return {"role": ROLES.get(role, role), "content": content}


def asked_and_said(turns: Sequence[Turn]) -> tuple[str, str]:
    """Return a conversation for reading: all before the assistant's last answer, and that answer, empty without one."""
    last = len(turns) - 1 if turns and turns[-1]["role"] == "assistant" else len(turns)
    prompt = turns[:last]
    text = (
        prompt[0]["content"] if len(prompt) == 1 else "\n".join(f"{turn['role']}: {turn['content']}" for turn in prompt)
    )
    return text, turns[last]["content"] if last < len(turns) else ""


def order_fault(roles: Sequence[str]) -> str:
    """Return what is wrong with the order of roles, in words; empty where nothing is.

    Many chat templates refuse other orders than system, user, assistant, user, assistant and so on.
    """
    known = (*FIRST, *ASKS, *SAYS)
    for place, (role, before) in enumerate(zip(roles, [None, *roles], strict=False)):
        if role not in known:
            return f"the role {role[:20]!r} is none of {', '.join(known)}"
        if role in FIRST and place:
            return f"a {role} message follows other messages"
        if role in SAYS and before not in ASKS:
            return "an assistant's message follows no user's"
        if role == "user" and before == "user":
            return "two user's messages follow each other"
    return ""


TEXTS = ("text", "sentence", "sentence1", "question1", "question", "premise", "review", "content")
PAIRS = {"sentence1": "sentence2", "question1": "question2", "premise": "hypothesis", "question": "sentence"}
LABELS = ("label", "labels", "class", "target", "category", "sentiment", "y", "score", "rating", "stars")
GROUPS = ("domain", "source", "group", "topic", "language")
MESSAGES = ("messages", "conversations", "conversation")
PROMPTS = {"prompt": "completion", "instruction": "response", "input": "output"}
ANSWERS = ("answer",)
DIFFICULTY = "difficulty"
"""Names that columns usually have."""

BESIDE_TEXT = ("text", "id", "domain", *GROUPS, DIFFICULTY)
"""Columns beside which a text is to be continued, not classified, where nothing else is said."""


@dataclass(frozen=True)
class Columns:
    """The columns that are learned from; None for one that is not there.

    Attributes:
        text, text_pair: one text or two; what is before a completion, and the completion.
        label: of classes or numbers.
        group_by: input groups.
        messages: conversations, in the place of texts.
        answer: what a generated text is checked against.
        is_generative: the texts are to be written, not labelled; None leaves that to the columns.
    """

    text: str | None
    text_pair: str | None
    label: str | None
    group_by: str | None
    messages: str | None = None
    answer: str | None = None
    is_generative: bool | None = None

    def setting(self, role: str) -> str:
        """Return the setting of section `data` that names the column of a role."""
        if self.is_generative and self.text_pair is not None:
            return {"text": "prompt", "text_pair": "completion"}.get(role, role)
        return role


def is_generative(names: Sequence[str], wanted: Columns) -> bool:
    """Say whether the columns are those of texts to be written: conversations, completions, or a text alone."""
    known = set(names)
    if wanted.is_generative is not None:
        return wanted.is_generative
    if wanted.label in known or wanted.text_pair is not None:
        return False
    if "messages" in known or {"prompt", "completion"} <= known:
        return True
    return "text" in known and known <= set(BESIDE_TEXT) and wanted.text in (None, "text")


def resolved(names: Sequence[str], wanted: Columns) -> Columns:
    """Return the columns of a table, those that are left open found by their names.

    Raises:
        DataError: when no column is the text.
    """
    if is_generative(names, wanted):
        return _generative(names, wanted)
    text, pair, group = wanted.text, wanted.text_pair, wanted.group_by
    label = wanted.label if wanted.label is None else _written_as(wanted.label, names)
    if text is None and "text" not in names and pair is None:
        text, pair = next((both for both in PAIRS.items() if set(both) <= set(names)), (None, None))
    likely = (_written_as(name, names) for name in TEXTS)
    text = text or next((name for name in likely if name in names and name not in (pair, label)), None)
    if text is None:
        raise DataError(f"data.text: none of the columns {listed(names)} is named text or sentence; set data.text")
    if group is None:
        group = "domain" if "domain" in names else "length"
    return Columns(text, pair, label, group, is_generative=False)


def _written_as(name: str, names: Sequence[str]) -> str:
    """Return the column that has a name but for case and surrounding space; the name itself where there is none."""
    same = (column for column in names if column.strip().casefold() == name.casefold())
    return name if name in names else next(same, name)


def _generative(names: Sequence[str], columns: Columns) -> Columns:
    """Return the columns of texts to be written.

    Raises:
        DataError: when none holds a text, a completion or a conversation.
    """
    known = set(names)
    prompt, completion, messages = columns.text, columns.text_pair, columns.messages
    if prompt is None and completion is None and messages is None:
        messages = next((name for name in MESSAGES if name in known), None)
    if messages is None and completion is None:
        pairs = {one: other for one, other in PROMPTS.items() if other in known and prompt in (None, one)}
        prompt, completion = next((both for both in pairs.items() if both[0] in known), (prompt, None))
    if messages is None and completion is not None and prompt is None:
        prompt = next((one for one in PROMPTS if one in known and one != completion), None)
        if prompt is None:
            raise DataError(f"data.prompt: none of the columns {listed(names)} is named prompt; set data.prompt")
    if messages is None and prompt is None:
        prompt = next((name for name in TEXTS if name in known), None)
        if prompt is None:
            raise DataError(
                f"data.text: none of the columns {listed(names)} is named text, prompt and completion, or messages; "
                "set data.text, data.prompt and data.completion, or data.messages"
            )
    answer = columns.answer or next((name for name in ANSWERS if name in known and name != completion), None)
    group = columns.group_by or next((name for name in ("domain", DIFFICULTY) if name in known), "length")
    return Columns(prompt, completion, None, group, messages, answer, is_generative=True)


def listed(names: Sequence[str]) -> str:
    """Return column names for a message: the first twenty, each cut, what cannot be printed left out."""
    words = ["".join(filter(str.isprintable, name))[:40] for name in names[:20]]
    return ", ".join(words) + (f" and {len(names) - 20:,} more" if len(names) > 20 else "")


def missing(key: str, name: str, part: str, names: Sequence[str]) -> DataError:
    """Return the error for a column that is not there."""
    return DataError(f"data.{key}={name}: no such column in the {part} data; the columns are {listed(names)}")


def guessed(rows: pd.DataFrame) -> dict[str, str | None]:
    """Return which column is likely to hold what: text, text_pair, label, group_by; None where there is none."""
    names = [str(name) for name in rows.columns]
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


def guessed_kind(rows: pd.DataFrame) -> str:
    """Return what kind of data a table is likely to be, one of `KINDS`."""
    names = [str(name) for name in rows.columns]
    if any(_holds_conversations(rows, name) for name in _named(names, MESSAGES)):
        return "messages"
    if not _named(names, LABELS):
        if _pair_of(names, PROMPTS) != (None, None):
            return "completion"
        if "text" in names and {*names} <= {*BESIDE_TEXT}:
            return "text"
    return "labelled"


def guessed_written(rows: pd.DataFrame) -> dict[str, str | None]:
    """Return which column of texts to be written is likely to hold what: prompt, completion, messages, answer."""
    names = [str(name) for name in rows.columns]
    prompt, completion = _pair_of(names, PROMPTS)
    messages = next((name for name in _named(names, MESSAGES) if _holds_conversations(rows, name)), None)
    answer = next((name for name in _named(names, ANSWERS) if name != completion), None)
    return {"prompt": prompt, "completion": completion, "messages": messages, "answer": answer}


def _pair_of(names: Sequence[str], pairs: Mapping[str, str]) -> tuple[str | None, str | None]:
    """Return the first pair of which both columns are there, as the table spells them."""
    for pair in pairs.items():
        columns = _named(names, pair)
        if len(columns) == 2:
            return columns[0], columns[1]
    return None, None


def _holds_conversations(rows: pd.DataFrame, name: str) -> bool:
    """Say whether most cells of a column are conversations, or lists: broken ones, which the check then names."""
    cells = [plain(cell) for cell in rows[name].head(20)]
    return 2 * sum(isinstance(cell, list) or is_conversation(cell) for cell in cells) > len(cells)


def _named(names: Sequence[str], candidates: Sequence[str]) -> list[str]:
    """Return the columns with the wanted names, in the order wanted, whatever their case where none is spelled so."""
    spelled = {name.lower(): name for name in reversed(names)} | {name: name for name in names}
    return [spelled[name] for name in candidates if name in spelled]


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
