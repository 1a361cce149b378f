"""Rows that have a fault, by kind; a repair leaves out exactly the rows that the check shows."""

from __future__ import annotations

import ast
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import numpy as np

from dynlora.data_files import similarity
from dynlora.data_files.columns import SAYS, order_fault
from dynlora.data_files.examples import HELD_OUT, TRAIN, Examples, is_empty, is_infinite

_PIECE = re.compile(r"\w+|[^\w\s]")
TOKENS_PER_WORD = 1.3
CHARACTERS_PER_TOKEN = 4.5
"""What an estimate of tokens assumes: of words and punctuation, and of text without spaces."""


def empty_texts(rows: Examples) -> np.ndarray:
    """Return rows of which a text is empty; a conversation that ends without an answer has no empty text."""
    return empty_prompts(rows) | (empty_answers(rows) if rows.roles else empty_pairs(rows))


def empty_prompts(rows: Examples) -> np.ndarray:
    """Return rows of which the text, or what is before a completion, is empty."""
    return _where(is_empty(value) for value in rows.text)


def empty_pairs(rows: Examples) -> np.ndarray:
    """Return rows of which the second text, or the completion, is empty."""
    return _where(is_empty(value) for value in rows.pair) if rows.pair else np.zeros(len(rows), bool)


def no_conversations(rows: Examples) -> np.ndarray:
    """Return rows whose cell is no conversation."""
    return _where(not roles for roles in rows.roles)


def empty_questions(rows: Examples) -> np.ndarray:
    """Return conversations in which what the assistant answers is empty."""
    return empty_prompts(rows) & ~no_conversations(rows)


def empty_answers(rows: Examples) -> np.ndarray:
    """Return conversations of which the last answer is there and empty."""
    return _where(value is not None and is_empty(value) for value in rows.pair)


def unanswered(rows: Examples) -> np.ndarray:
    """Return conversations in which the assistant has not the last word."""
    return _where(bool(roles) and roles[-1] not in SAYS for roles in rows.roles or [()] * len(rows))


def without_assistant(rows: Examples) -> np.ndarray:
    """Return conversations in which the assistant says nothing."""
    return unanswered(rows) & _where(not set(SAYS) & set(roles) for roles in rows.roles or [()] * len(rows))


def roles_out_of_order(rows: Examples) -> np.ndarray:
    """Return conversations whose roles are in an order that many chat templates refuse."""
    return _where(bool(roles) and bool(order_fault(roles)) for roles in rows.roles or [()] * len(rows))


def shared_prompts(rows: Examples) -> np.ndarray:
    """Return training examples whose prompt is held out too, with another completion."""
    if not rows.pair:
        return np.zeros(len(rows), bool)
    prompts = [None if key is None else key[0] for key in rows.keys]
    return _on_both_sides(rows, prompts) & ~shared(rows)


def lost(rows: Examples, max_length: int) -> np.ndarray:
    """Return rows whose prompt alone has, by estimate, `max_length` tokens or more."""
    return _where(len(str(text)) >= max_length and tokens_of(text) >= max_length for text in rows.text)


def empty_labels(rows: Examples) -> np.ndarray:
    """Return rows of which the label is empty."""
    return _where(is_empty(value) for value in rows.label)


def infinite_labels(rows: Examples) -> np.ndarray:
    """Return rows of which the label is an infinite number."""
    return _where(is_infinite(value) for value in rows.label)


def unusable_labels(rows: Examples) -> np.ndarray:
    """Return rows that cannot be learned from, because they have no label or an infinite one."""
    return empty_labels(rows) | infinite_labels(rows)


def no_texts(rows: Examples) -> np.ndarray:
    """Return rows of which a text is a list, an object or a date."""
    return _where(not is_empty(value) and not isinstance(value, str | int | float) for value in rows.text)


def guessed_encoding(rows: Examples) -> np.ndarray:
    """Return rows whose text or label depends on an encoding that was guessed."""
    pairs, labels = (values or [""] * len(rows) for values in (rows.pair, rows.label))
    cells = zip(rows.table.tolist(), rows.text, pairs, labels, strict=True)
    return _where(
        bool(rows.tables[table].guess) and not all(str(cell).isascii() for cell in texts) for table, *texts in cells
    )


def duplicates(rows: Examples) -> np.ndarray:
    """Return rows that repeat text and label of an earlier row of their side."""
    return _repeated(rows, [None if key is None else (key, name) for key, name in _labelled(rows, rows.keys)])


def near_duplicates(rows: Examples) -> np.ndarray:
    """Return rows that are an earlier row of their side and class but for case, punctuation and spaces."""
    flags = _repeated(rows, [None if key is None else (key, name) for key, name in _labelled(rows, rows.near_keys)])
    return flags & ~duplicates(rows)


def similar(rows: Examples) -> np.ndarray:
    """Return rows whose text is much like an earlier one of their side and class, and not the same."""
    groups = list(zip(rows.side.tolist(), _classes_or_none(rows), strict=True))
    return similarity.repeated(rows.near_keys, groups, rows.sketches)


def similar_shared(rows: Examples) -> np.ndarray:
    """Return training examples whose text is much like a held-out one of their class, and not the same."""
    same = _on_both_sides(rows, rows.near_keys)
    train, held = (np.flatnonzero(flags).tolist() for flags in ((rows.side == TRAIN) & ~same, rows.side == HELD_OUT))
    alike = np.zeros(len(rows), bool)
    alike[similarity.alike_to(train, held, _classes_or_none(rows), rows.sketches)] = True
    return alike


def _classes_or_none(rows: Examples) -> Sequence[str | None]:
    """Return the class of each row; None for all where labels are numbers on a scale."""
    return rows.classes if rows.label and not rows.is_numeric else [None] * len(rows)


def _labelled(rows: Examples, keys: Sequence[Any]) -> list[tuple[Any, str | None]]:
    return list(zip(keys, rows.classes if rows.label else [None] * len(rows), strict=True))


def _repeated(rows: Examples, keys: Sequence[Hashable]) -> np.ndarray:
    """Return rows whose key an earlier row of their side has."""
    seen, flags = set[Any](), np.zeros(len(rows), bool)
    for row, (key, side) in enumerate(zip(keys, rows.side.tolist(), strict=True)):
        if key is not None:
            flags[row] = (key, side) in seen
            seen.add((key, side))
    return flags


def conflicts(rows: Examples) -> np.ndarray:
    """Return rows whose text has another label elsewhere in their side."""
    labels: dict[Any, set[str]] = {}
    keys = [None if key is None else (key, side) for key, side in zip(rows.keys, rows.side.tolist(), strict=True)]
    for key, name in _labelled(rows, keys):
        if key is not None and name is not None:
            labels.setdefault(key, set()).add(name)
    return _where(key is not None and len(labels.get(key, ())) > 1 for key in keys)


def shared(rows: Examples) -> np.ndarray:
    """Return training examples whose text is held out too."""
    return _on_both_sides(rows, rows.keys)


def near_shared(rows: Examples) -> np.ndarray:
    """Return training examples that are a held-out text but for case, punctuation and spaces."""
    return _on_both_sides(rows, rows.near_keys) & ~shared(rows)


def shared_with_other_label(rows: Examples) -> np.ndarray:
    """Return training examples whose text is held out with another label, and never with theirs."""
    held = {
        (key, name)
        for key, name, side in zip(rows.keys, rows.classes, rows.side, strict=True)
        if key is not None and side == HELD_OUT
    }
    alike = _where((key, name) in held for key, name in zip(rows.keys, rows.classes, strict=True))
    return shared(rows) & ~alike


def _on_both_sides(rows: Examples, keys: Sequence[Any]) -> np.ndarray:
    held = {key for key, side in zip(keys, rows.side, strict=True) if key is not None and side == HELD_OUT}
    return _where(key in held for key in keys) & (rows.side == TRAIN)


def rare(rows: Examples) -> np.ndarray:
    """Return the row of each class that has one row, however the class is spelled."""
    names = [None if name is None else _folded(name) for name in rows.classes]
    counts = Counter(names)
    return _where(name is not None and counts[name] == 1 for name in names)


def _folded(name: str) -> str:
    """Return a class name composed, without case and invisible characters, white space as single spaces inside."""
    visible = (one for one in unicodedata.normalize("NFC", name) if unicodedata.category(one) != "Cf")
    return " ".join("".join(visible).casefold().split())


def unseen(rows: Examples) -> np.ndarray:
    """Return held-out examples of a class that no training row has, however the class is spelled.

    Where one file is split, the only row of a class is rare, wherever it falls.
    """
    names = [None if name is None else _folded(name) for name in rows.classes]
    trained = {name for name, side in zip(names, rows.side, strict=True) if side == TRAIN}
    flags = _where(name is not None and name not in trained for name in names) & (rows.side == HELD_OUT)
    return flags & ~rare(rows) if len(rows.tables) == 1 else flags


def spellings(rows: Examples) -> dict[str, str]:
    """Return classes that are another class to the eye but for case, and the more frequent one they belong to."""
    counts = Counter(name for name in rows.classes if name is not None)
    groups: dict[str, list[str]] = {}
    for name in sorted(counts, key=lambda name: (-counts[name], name)):
        groups.setdefault(_folded(name), []).append(name)
    return {other: names[0] for names in groups.values() for other in names[1:]}


def misspelled(rows: Examples) -> np.ndarray:
    """Return rows of a class that is spelled in another way more often."""
    wrong = spellings(rows)
    return _where(name in wrong for name in rows.classes)


def lists(rows: Examples) -> np.ndarray:
    """Return rows whose label is a list, or the text of one."""
    return _where(
        isinstance(value, list | dict | tuple) or (isinstance(value, str) and _is_list_text(value))
        for value in rows.label
    )


def _is_list_text(value: str) -> bool:
    text = value.strip()
    if not (text.startswith("[") and text.endswith("]")):
        return False
    try:
        return isinstance(ast.literal_eval(text), list)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return False  # a word in brackets


def long(rows: Examples, max_length: int) -> np.ndarray:
    """Return rows whose text has, by estimate, more than `max_length` tokens."""
    pairs = rows.pair or [None] * len(rows)
    return _where(is_long(text, pair, max_length) for text, pair in zip(rows.text, pairs, strict=True))


def is_long(text: Any, pair: Any, max_length: int) -> bool:
    """Say whether a text, or both of a pair, have by estimate more than `max_length` tokens; no pair is None."""
    second = "" if pair is None else str(pair)
    if len(str(text)) + len(second) <= max_length:
        return False
    return tokens_of(text) + (0 if pair is None else tokens_of(second) + 1) + 2 > max_length


def tokens_of(text: Any) -> float:
    """Return an estimate of the tokens of a text: words and punctuation; text without spaces by its length."""
    return max(TOKENS_PER_WORD * len(_PIECE.findall(str(text))), len(str(text)) / CHARACTERS_PER_TOKEN)


def _where(flags: Any) -> np.ndarray:
    return np.fromiter(flags, bool)


DROPPED_BY: dict[str, Callable[[Examples], np.ndarray]] = {
    "drop_empty_texts": empty_texts,
    "drop_empty_labels": unusable_labels,
    "drop_duplicates": duplicates,
    "drop_near_duplicates": near_duplicates,
    "drop_similar": similar,
    "drop_conflicts": conflicts,
    "drop_shared": shared,
    "drop_near_shared": near_shared,
    "drop_similar_shared": similar_shared,
    "drop_rare": rare,
    "drop_unseen": unseen,
    "drop_role_order": roles_out_of_order,
    "drop_unanswered": unanswered,
    "drop_shared_prompts": shared_prompts,
}
"""What each repair leaves out, by its name in `data.repair`."""
