"""Texts and labels of both sides as plain values, with the place of each row: what faults are looked for in."""

from __future__ import annotations

import json
import math
import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from dynlora.data_files.columns import Columns, asked_and_said, conversation, missing
from dynlora.data_files.reader import Sides
from dynlora.data_files.similarity import Sketches
from dynlora.data_files.table import Table
from dynlora.errors import DataError
from dynlora.text import printable

_WORD = re.compile(r"\w+")
TRAIN, HELD_OUT = 0, 1
PARTS = ("training", "held-out")


@dataclass(frozen=True)
class Examples:
    """Rows of both sides, those of training first.

    Attributes:
        tables: the training table and, where there is one of its own, the held-out table.
        columns: which column is what.
        text, pair: values of the text columns; no pair where there is no second text.
        label: values of the label column.
        table: position in `tables`, (n,).
        row: position in its table, (n,).
        side: `TRAIN` or `HELD_OUT`, (n,).
        class_names: what whole numbers of the label mean, where the data says so.
        roles: of each conversation in order, none where a cell is no conversation; empty without conversations.
    """

    tables: tuple[Table, ...]
    columns: Columns
    text: list[Any]
    pair: list[Any]
    label: list[Any]
    table: np.ndarray
    row: np.ndarray
    side: np.ndarray
    class_names: Sequence[str] | None = None
    roles: list[tuple[str, ...]] = field(default_factory=list[tuple[str, ...]])
    _kept: dict[str, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.text)

    @classmethod
    def of(cls, sides: Sides, columns: Columns, class_names: Sequence[str] | None = None) -> Examples:
        """Return the rows of tables.

        Raises:
            DataError: when a column is not there.
        """
        tables = (sides.train,) if sides.held_out is None else (sides.train, sides.held_out)
        for part, table in zip(PARTS, tables, strict=False):
            for key in ("text", "text_pair", "label", "messages"):
                name = getattr(columns, key)
                if name is not None and name not in table.columns:
                    raise missing(columns.setting(key), name, part, table.columns)
        text, pair, label = (
            [] if name is None else [value for table in tables for value in table.values(name)]
            for name in (columns.text, columns.text_pair, columns.label)
        )
        roles: list[tuple[str, ...]] = []
        if columns.messages is not None:
            text, pair, roles = _read_conversations(tables, columns.messages)
        side = np.concatenate([np.full(len(table), position) for position, table in enumerate(tables)])
        row = np.concatenate([np.arange(len(table)) for table in tables])
        names = class_names or (sides.train.class_names(columns.label) if columns.label else None)
        return cls(tables, columns, text, pair, label, side.copy(), row, side, names, roles)

    def take(self, keep: np.ndarray) -> Examples:
        """Return the rows where `keep`, (n,), is true."""
        chosen = np.flatnonzero(keep)
        text, pair, label, roles = (
            [values[row] for row in chosen] if values else []
            for values in (self.text, self.pair, self.label, self.roles)
        )
        return replace(
            self,
            text=text,
            pair=pair,
            label=label,
            roles=roles,
            table=self.table[chosen],
            row=self.row[chosen],
            side=self.side[chosen],
        )

    def with_side(self, side: np.ndarray) -> Examples:
        """Return the rows with other sides, (n,); what is worked out of texts and labels serves both."""
        examples = replace(self, side=side)
        object.__setattr__(examples, "_kept", self._kept)
        return examples

    def _once(self, name: str, make: Callable[[], Any]) -> Any:
        """Return what is worked out of all rows when it is first asked for."""
        if name not in self._kept:
            self._kept[name] = make()
        return self._kept[name]

    def values(self, column: str) -> list[Any]:
        """Return another column of the rows.

        Raises:
            DataError: when it is not there.
        """
        for part, table in zip(PARTS, self.tables, strict=False):
            if column not in table.columns:
                raise missing("repair", column, part, table.columns)
        whole = [table.values(column) for table in self.tables]
        return [whole[table][row] for table, row in zip(self.table, self.row, strict=True)]

    @property
    def keys(self) -> list[Any]:
        """Text, or both texts, of each row as written; None where one is empty."""
        return self._once("keys", self._keys)

    @property
    def near_keys(self) -> list[Any]:
        """Text of each row in small letters, without punctuation and spaces; None where nothing is left."""
        return self._once("near_keys", self._near_keys)

    @property
    def sketches(self) -> Sketches:
        """What finds texts that are alike though not equal."""
        texts = (None if key is None else "\n".join(key) for key in self.near_keys)
        return self._once("sketches", lambda: Sketches(list(texts)))

    @property
    def classes(self) -> list[str | None]:
        """Class name of each row; None where the label is empty."""
        return self._once("classes", self._classes)

    def _keys(self) -> list[Any]:
        pairs = self.pair or [""] * len(self)
        return [
            None if is_empty(text) or (self.pair and is_empty(pair)) else (str(text), str(pair))
            for text, pair in zip(self.text, pairs, strict=True)
        ]

    def _near_keys(self) -> list[Any]:
        keys = [
            None if key is None else tuple(" ".join(_WORD.findall(part.casefold())) for part in key)
            for key in self.keys
        ]
        return [key if key and any(key) else None for key in keys]

    def _classes(self) -> list[str | None]:
        known: dict[Any, str | None] = {}
        classes: list[str | None] = []
        for value in self.label:
            key = (type(value), value if isinstance(value, str | int | float) else str(value))
            if key not in known:
                known[key] = None if is_empty(value) else class_name(value, self.class_names)
            classes.append(known[key])
        return classes

    @cached_property
    def is_numeric(self) -> bool:
        """Whether all labels that are there are numbers, and some are fractions."""
        labels = [value for value in self.label if not is_empty(value) and not is_infinite(value)]
        numbers = bool(labels) and all(
            isinstance(value, int | float) and not isinstance(value, bool) for value in labels
        )
        return numbers and any(not float(value).is_integer() for value in labels)

    def merged(self, classes: Mapping[str, str]) -> Examples:
        """Return the rows with classes renamed to others, each value as the column spells the other class.

        Raises:
            DataError: when a class is not there.
        """
        spelled: dict[str, Any] = {}
        for value, name in zip(self.label, self.classes, strict=True):
            if name is not None:
                spelled.setdefault(name, value)
        texts = all(isinstance(value, str) for value in spelled.values())
        for old, new in classes.items():
            absent = next((each for each in (old, *(() if texts else (new,))) if each not in spelled), None)
            if absent is not None:
                known = ", ".join(sorted(spelled)[:10])
                raise DataError(f"data.repair=merge {old} into {new}: no row is of class {absent}; classes are {known}")
        to = {old: spelled.get(new, new) for old, new in classes.items()}
        return replace(
            self,
            label=[
                to.get(name, value) if name is not None else value
                for value, name in zip(self.label, self.classes, strict=True)
            ],
        )

    def where(self, row: int) -> tuple[str, str, int]:
        """Return the file, the unit and the place of a row."""
        table, own = self.tables[int(self.table[row])], int(self.row[row])
        return table.names[int(table.file[own])], table.unit, int(table.place[own])


def _read_conversations(tables: Sequence[Table], column: str) -> tuple[list[Any], list[Any], list[tuple[str, ...]]]:
    """Return what was asked, what was said and the roles of each conversation; None, None and () where a cell is none.

    What was said is None where the assistant has not the last word.
    """
    rows: list[tuple[Any, Any, tuple[str, ...]]] = []
    for value in (value for table in tables for value in table.values(column)):
        try:
            turns = conversation(value)
        except ValueError:
            rows.append((None, None, ()))
            continue
        prompt, answer = asked_and_said(turns)
        roles = tuple(turn["role"] for turn in turns)
        rows.append((prompt, answer if roles[-1] == "assistant" else None, roles))
    prompts, answers, roles = ([row[place] for row in rows] for place in range(3))
    return prompts, answers, roles


def is_empty(value: Any) -> bool:
    """Say whether a cell holds nothing."""
    return (
        value is None
        or (isinstance(value, str) and not value.strip())
        or (isinstance(value, float) and math.isnan(value))
    )


MOST_LABEL = 1e18
"""A number on a scale is learned by its square, which fp32 must hold, also summed over a batch."""


def is_infinite(value: Any) -> bool:
    """Say whether a cell is a number beyond what can be learned, such as 1e400, which is read as infinite."""
    return isinstance(value, float) and abs(value) > MOST_LABEL


def texts_among_fractions(labels: Iterable[Any]) -> set[str]:
    """Return the distinct texts among numbers written as text, such as NA; each number would be a class.

    Empty where at least half of the distinct values are texts, or no number is a fraction.
    """
    numbers = {value: _finite_number(value) for value in labels if isinstance(value, str)}
    texts = {value for value, number in numbers.items() if number is None}
    has_fraction = any(number is not None and not number.is_integer() for number in numbers.values())
    return texts if has_fraction and len(numbers) > 2 * len(texts) else set()


def _finite_number(text: str) -> float | None:
    """Return the finite number a text is, or None."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def class_name(value: Any, names: Sequence[str] | None) -> str:
    """Return a class as text: its name where numbers have names; 1.0 from a CSV with gaps reads as 1."""
    if names and isinstance(value, int) and not isinstance(value, bool) and 0 <= value < len(names):
        return str(names[value])
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


SHOWN = 5


def counted(n: int, word: str) -> str:
    """Return a count with its word: 1 row, 2 rows."""
    return f"{n:,} {word}" if n == 1 else f"{n:,} {word}s"


def several(words: Sequence[str], limit: int = SHOWN) -> str:
    """Return words as a phrase: a, b and c; more than `limit` end in "and n more"."""
    items = list(words) if len(words) <= limit else [*words[:limit], f"{len(words) - limit:,} more"]
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}" if items else ""


def quoted(name: str) -> str:
    """Return a class name for a message; with quotes where white space matters, escaped where no eye would do."""
    if not name.isprintable() or not unicodedata.is_normalized("NFC", name):
        return json.dumps(name[:40])
    text = printable(name, 40)
    return f"'{text}'" if text != text.strip() or not text.isidentifier() else text


def places(rows: Examples, chosen: Sequence[int] | Any) -> str:
    """Return the places of rows: `rows.csv, lines 5, 9 and 12`; several files one after the other."""
    numbers: dict[tuple[str, str], list[int]] = {}
    for row in chosen:
        name, unit, place = rows.where(int(row))
        numbers.setdefault((name, unit), []).append(place)
    phrases = [
        f"{printable(name, 60)}, {unit}{'s' if len(at) > 1 else ''} {several([f'{place:,}' for place in at])}"
        for (name, unit), at in numbers.items()
    ]
    return "; ".join(phrases)
