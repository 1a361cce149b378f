"""Faults of data: what one is, those of language models, and those that are looked for in every table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dynlora.data_files import finders, similarity
from dynlora.data_files.columns import GROUPS
from dynlora.data_files.examples import (
    HELD_OUT,
    MOST_LABEL,
    TRAIN,
    Examples,
    counted,
    places,
    quoted,
    several,
    texts_among_fractions,
)
from dynlora.data_files.repairs import LIKE
from dynlora.text import printable


@dataclass(frozen=True)
class Fault:
    """One kind of fault.

    Attributes:
        kind: its name.
        title: two or three words.
        rows: positions of its rows; empty for a fault of the whole table.
        sentence: file, lines, rule and remedy.
        repair: what removes it, as a configuration holds it; None where only a person can.
        action: the repair in words, for a button.
        refuses: training refuses the data because of it.
    """

    kind: str
    title: str
    rows: np.ndarray
    sentence: str
    repair: Any = None
    action: str = ""
    refuses: bool = field(default=False)


@dataclass(frozen=True)
class Drop:
    """A fault of single rows that a repair of `finders.DROPPED_BY` leaves out.

    Attributes:
        kind, title: as of the fault.
        repair: its name.
        problem: what is wrong, `{text}` and `{label}` for the columns.
        remedy: what to do by hand.
        refuses: training refuses such rows.
        of_classes: looked for only where labels are classes.
        finds: the rows that are shown, where they are not all that the repair leaves out.
    """

    kind: str
    title: str
    repair: str
    problem: str
    remedy: str
    refuses: bool = False
    of_classes: bool = False
    finds: Callable[[Examples], np.ndarray] | None = None


_ITS = LIKE.replace("their", "its")


def _repeats(repeat: str, differ: str, one: str = "the text", of: str = "") -> tuple[Drop, ...]:
    """Return faults of rows that an earlier row says already.

    Args:
        repeat: what repeats it.
        differ: what differs from it, and which row that is.
        one: what is alike to it.
        of: among which rows, after a space.
    """
    remedy = "keep one of them"
    near = f"{differ} only by case, punctuation or spaces"
    return (
        Drop("duplicate", "Duplicates", "drop_duplicates", f"{repeat} an earlier row", remedy),
        Drop("near_duplicate", "Near-duplicates", "drop_near_duplicates", near, remedy),
        Drop("similar", "Similar texts", "drop_similar", f"{one} shares {_ITS} with an earlier one{of}", remedy),
    )


def _nearly_shared(of: str = "") -> tuple[Drop, ...]:
    """Return faults of training examples that are alike to a held-out text, of those that `of` says after a space."""
    return (
        Drop(
            "near_shared",
            "Nearly the same text held out",
            "drop_near_shared",
            "the training text is in the held-out part too but for case, punctuation or spaces",
            "keep it on one side",
        ),
        Drop(
            "similar_shared",
            "Similar text held out",
            "drop_similar_shared",
            f"the training text shares {_ITS} with a held-out text{of}",
            "keep them on one side",
        ),
    )


_EMPTY = Drop("empty_text", "Empty text", "drop_empty_texts", "the text is empty (data.text={text})", "fill it", True)
_COMPLETIONS = (
    Drop(
        "empty_prompt",
        "Empty prompt",
        "drop_empty_texts",
        "the prompt is empty (data.prompt={text})",
        "fill it",
        True,
        finds=finders.empty_prompts,
    ),
    Drop(
        "empty_completion",
        "Empty completion",
        "drop_empty_texts",
        "the completion is empty (data.completion={pair})",
        "fill it",
        True,
        finds=finders.empty_pairs,
    ),
    *_repeats("prompt and completion repeat", "prompt and completion differ from an earlier row", "the row"),
)
_CONVERSATIONS = (
    Drop(
        "no_conversation",
        "No conversation",
        "drop_empty_texts",
        "the cell is not a list of messages with role and content (data.messages={text})",
        "correct it",
        True,
        finds=finders.no_conversations,
    ),
    Drop(
        "empty_prompt",
        "Empty prompt",
        "drop_empty_texts",
        "what the assistant answers is empty",
        "fill it",
        finds=finders.empty_questions,
    ),
    Drop(
        "empty_completion",
        "Empty answer",
        "drop_empty_texts",
        "the last answer of the assistant is empty",
        "fill it",
        finds=finders.empty_answers,
    ),
    Drop(
        "role_order",
        "Roles out of order",
        "drop_role_order",
        "the roles are not in the order that chat templates expect (system first, then user and assistant in turn)",
        "correct the order",
    ),
    *_repeats("the messages repeat", "the messages differ from an earlier row", "the row"),
)
_UNANSWERED = {
    "completion": Drop(
        "unanswered",
        "No answer at the end",
        "drop_unanswered",
        "the last message is not the assistant's, so no token is in the loss",
        "add the answer, or set data.loss_on=all",
    ),
    "assistant": Drop(
        "unanswered",
        "No answer",
        "drop_unanswered",
        "the assistant says nothing, so no token is in the loss",
        "add an answer, or set data.loss_on=all",
        finds=finders.without_assistant,
    ),
}
_TEXTS = (_EMPTY, *_repeats("the text repeats", "the text differs from an earlier row"))

LATE = (
    Drop(
        "shared_prompt",
        "Same prompt on both sides",
        "drop_shared_prompts",
        "the training prompt is in the held-out part too with another completion, so held-out results are too "
        "optimistic",
        "keep it on one side",
    ),
    *_nearly_shared(),
)
"""Faults that are looked for after the split."""


def early(rows: Examples, loss_on: str | None) -> Sequence[Drop]:
    """Return the faults that are looked for before the split.

    Args:
        rows: of texts to be written.
        loss_on: `data.loss_on`.
    """
    if rows.columns.messages is not None:
        unanswered = _UNANSWERED.get(loss_on or "completion")
        return _CONVERSATIONS if unanswered is None else (*_CONVERSATIONS, unanswered)
    return _COMPLETIONS if rows.pair else _TEXTS


ID_SHARE, ID_ROWS = 0.9, 20
"""A label column is an id when more than this fraction of so many rows or more have a label of their own."""

MAX_CLASSES = 1000
"""Classes that a model can learn."""

SENTENCE = 5
"""A name of a column with so many words or more is a text."""

EXAMPLES = 50
"""Rows that are shown of each fault."""


_EARLY = (
    _EMPTY,
    Drop(
        "empty_label",
        "Empty label",
        "drop_empty_labels",
        "the label is empty (data.label={label})",
        "fill it",
        True,
        finds=finders.empty_labels,
    ),
    Drop(
        "infinite_label",
        "Label not finite",
        "drop_empty_labels",
        f"the label is not a finite number, or beyond {MOST_LABEL:g} (data.label={{label}})",
        "correct it",
        True,
        finds=finders.infinite_labels,
    ),
    *_repeats("text and label repeat", "the text differs from an earlier one of its class", of=" of its class"),
    Drop(
        "conflict",
        "Conflicting labels",
        "drop_conflicts",
        "the same text has another label in another row",
        "correct the label",
        of_classes=True,
    ),
    Drop(
        "rare",
        "Classes with one row",
        "drop_rare",
        "no other row has its class",
        "add rows of the class",
        of_classes=True,
    ),
)
_LATE = (
    *_nearly_shared(" of its class"),
    Drop(
        "unseen",
        "Held-out class never trained",
        "drop_unseen",
        "the held-out class is in no training example",
        "add training examples of it",
        of_classes=True,
    ),
)


def found_in(
    rows: Examples, split: Examples | None, has_classes: bool | None, max_length: int, loss_on: str | None = None
) -> Iterator[Fault]:
    """Yield every fault, those first that training refuses.

    Args:
        rows: all rows, those of one file on one side.
        split: the same rows with both sides; None where they cannot be split.
        has_classes: labels are classes; None where the labels say so themselves.
        max_length: `data.max_length`, in tokens.
        loss_on: `data.loss_on`, for texts to be written.
    """
    writes = bool(rows.columns.is_generative)
    has_classes = bool(rows.label) and (not rows.is_numeric if has_classes is None else has_classes)
    known = rows if split is None else split
    whole = [*_of_texts(rows), *(_of_labels(rows, known, has_classes) if len(rows) > 1 else ())]
    yield from sorted(whole, key=lambda fault: not fault.refuses)
    yield from _header(rows)
    yield from _encoding(rows)
    is_column_wrong = any(fault.kind in ("id", "list", "hidden") for fault in whole)
    use_classes = has_classes and not is_column_wrong
    for drop in early(rows, loss_on) if writes else _EARLY:
        if drop.kind == "duplicate" and use_classes:
            yield from _spellings(rows)  # merged classes may make duplicates
        if (use_classes or not drop.of_classes) and not (drop.repair == "drop_empty_labels" and not rows.label):
            yield from _dropped(rows, drop)
    if split is not None:
        yield from _on_both_sides(split, use_classes)
        for drop in LATE if writes else _LATE:
            if use_classes or not drop.of_classes:
                yield from _dropped(split, drop)
    yield from _lost(rows, max_length) if writes and rows.pair else ()
    yield from _long(rows, max_length)


def _dropped(rows: Examples, drop: Drop) -> Iterator[Fault]:
    """Yield the fault of rows that a repair leaves out."""
    chosen = np.flatnonzero((drop.finds or finders.DROPPED_BY[drop.repair])(rows))
    if len(chosen):
        columns = rows.columns
        problem = drop.problem.format(
            text=_shown(columns.text or columns.messages), label=_shown(columns.label), pair=_shown(columns.text_pair)
        )
        ways = f"{drop.remedy}, or leave {'it' if len(chosen) == 1 else 'them'} out with data.repair=[{drop.repair}]"
        yield Fault(
            drop.kind,
            drop.title,
            chosen,
            f"{places(rows, chosen)}: {problem}; {ways}.",
            drop.repair,
            f"Leave out {counted(len(chosen), 'row')}",
            drop.refuses,
        )


def _of_labels(rows: Examples, known: Examples, has_classes: bool) -> Iterator[Fault]:
    """Yield what is wrong with the label column as a whole; the sides are those of `known`."""
    if not rows.label:
        return
    file, column = _file(rows), _shown(rows.columns.label)
    names = Counter(name for name in rows.classes if name is not None)
    lists = np.flatnonzero(finders.lists(rows))
    are_values = any(not isinstance(rows.label[row], str) for row in lists)
    if are_values or len(lists) * 2 > len(rows):
        yield Fault(
            "list",
            "Lists as labels",
            lists,
            f"{places(rows, lists)}: the label is a list (data.label={column}); several labels a row "
            "(multi-label) are not supported, so give each row one label.",
            refuses=are_values,
        )
        if are_values:
            return
    where, none = f"{file}, data.label={column}", np.arange(0)
    total = sum(names.values())
    trained = {name for name, side in zip(known.classes, known.side, strict=True) if name is not None and side == TRAIN}
    sides = [
        {value for value, own in zip(known.label, known.side, strict=True) if own == side} for side in (TRAIN, HELD_OUT)
    ]
    if names and (set(names) == {"-1"} or {-1} in sides or _hidden(rows)):
        sentence = f"{where}: labels are -1, a hidden label; use a part of the data that has labels."
        yield Fault("hidden", "Hidden labels", none, sentence, refuses=True)
    elif has_classes and len(names) > ID_SHARE * total and len(rows) >= ID_ROWS:
        problem = f"{len(names):,} of {total:,} labels are distinct, so the column is an id or a number"
        remedy = "choose another column as data.label, or set data.task=regression for numbers"
        sentence = f"{where}: {problem}; {remedy}."
        yield Fault("id", "Label column is an id", none, sentence, refuses=len(names) > MAX_CLASSES)
    elif has_classes and len(trained) == 1:
        problem = f"every training label is {_shown(*trained)}, only one class, so there is nothing to learn"
        sentence = f"{where}: {problem}; use data with two classes or more."
        yield Fault("one_class", "One class only", none, sentence, refuses=True)
    if has_classes and (wrong := texts_among_fractions(known.label)):
        chosen = np.flatnonzero([value in wrong for value in rows.label])
        problem = f"the label is text such as {min(wrong)[:40]!r} among numbers (data.label={column})"
        sentence = f"{places(rows, chosen)}: {problem}; correct or remove such rows."
        yield Fault("mixed", "Numbers and text as labels", chosen, sentence, refuses=True)


def _hidden(rows: Examples) -> bool:
    """Say whether a label is -1 where numbers have names."""
    return bool(rows.class_names) and any(isinstance(value, int) and value == -1 for value in rows.label)


def _of_texts(rows: Examples) -> Iterator[Fault]:
    """Yield what is wrong with the text column as a whole."""
    if len(rows) < 2 and len(rows.tables) == 1:
        yield Fault(
            "few_rows",
            "Too few rows",
            np.arange(0),
            f"{_file(rows)}: has {counted(len(rows), 'row')}, {similarity.TOO_FEW}.",
            refuses=True,
        )
    chosen = np.flatnonzero(finders.no_texts(rows))
    if len(chosen):
        kind = type(rows.text[chosen[0]]).__name__
        problem = f"{places(rows, chosen)}: data.text={_shown(rows.columns.text)} is a {kind} where a text is expected"
        yield Fault("no_text", "Not text", chosen, f"{problem}; choose another column as data.text.", refuses=True)


def _header(rows: Examples) -> Iterator[Fault]:
    """Yield that the names of the columns look like a row: they are values too, numbers, or whole sentences."""
    columns = rows.columns
    chosen = ((columns.text, rows.text), (columns.text_pair, rows.pair), (columns.label, rows.label))
    for name, values in chosen:
        is_in_file = rows.tables[0].names[0].lower().removesuffix(".gz").endswith((".csv", ".tsv", ".xlsx"))
        if name is None or not is_in_file:
            continue
        is_value = any(str(value).strip() == name.strip() for value in values)
        if is_value or _is_number(name) or len(name.split()) >= SENTENCE:
            what = "a value of its column too" if is_value else "no name"
            sentence = (
                f"{_file(rows)}: the first row looks like data, because {_shown(name)!r} is {what}; put a header with "
                "the names of the columns before it, such as text,label."
            )
            yield Fault("header", "No header line", np.arange(0), sentence)
            return


def _is_number(name: str) -> bool:
    """Say whether a name is a number."""
    return name.strip().lstrip("+-").replace(".", "", 1).isdecimal()


def _encoding(rows: Examples) -> Iterator[Fault]:
    """Yield texts that may read wrong, because the bytes of their file do not say its encoding."""
    chosen = np.flatnonzero(finders.guessed_encoding(rows))
    if len(chosen):
        guess = rows.tables[int(rows.table[chosen[0]])].guess
        problem = f"the file does not say its encoding, {guess} was taken"
        remedy = (
            "where these texts read wrong, set data.encoding, such as data.encoding=windows-1251; where they read "
            f"right, data.encoding={guess.lower()} confirms it"
        )
        yield Fault("encoding", "Encoding guessed", chosen, f"{places(rows, chosen)}: {problem}; {remedy}.")


def _spellings(rows: Examples) -> Iterator[Fault]:
    """Yield classes that are spelled in several ways."""
    merge = finders.spellings(rows)
    chosen = np.flatnonzero(finders.misspelled(rows))
    if len(chosen):
        pairs = [f"{quoted(old)} is {quoted(new)}" for old, new in merge.items()]
        first = next(iter(merge.items()))
        action = (
            f"Merge {_shown(first[0])} into {_shown(first[1])}"
            if len(merge) == 1
            else (f"Merge {len(merge)} spellings")
        )
        spelled = ", ".join(f"{quoted(old)}: {quoted(new)}" for old, new in list(merge.items())[:3])
        problem = f"{places(rows, chosen)}: {several(pairs)} but for case, white space or characters that look alike"
        way = f"correct the label, or merge them with data.repair=[merge: {{{spelled}}}]"
        yield Fault("spelling", "Class spelled in several ways", chosen, f"{problem}; {way}.", {"merge": merge}, action)


def _on_both_sides(rows: Examples, has_classes: bool) -> Iterator[Fault]:
    """Yield training examples that are held out too: those with the same label, and with another."""
    shared = finders.shared(rows)
    other = finders.shared_with_other_label(rows) if has_classes else np.zeros(len(rows), bool)
    drawn = len(rows.tables) == 1
    by = _group_column(rows) if drawn else None
    for kind, title, flags, also in (
        ("shared", "Same text on both sides", shared & ~other, ""),
        ("shared_other_label", "Same text, other label", other, " with another label"),
    ):
        chosen = np.flatnonzero(flags)
        if not len(chosen):
            continue
        repair: Any = {"split_by": by} if by and not also else "drop_shared"
        action = f"Split by {_shown(by)}" if by and not also else f"Leave out {counted(int(shared.sum()), 'row')}"
        remedy = (
            f"split by it with data.repair=[split_by: {by}]"
            if by and not also
            else ("leave the training examples out with data.repair=[drop_shared]")
        )
        problem = f"{places(rows, chosen)}: the training text is in the held-out part too{also}"
        effect = "so held-out results are too optimistic; keep it on one side"
        yield Fault(kind, title, chosen, f"{problem}, {effect}, or {remedy}.", repair, action)


def _group_column(rows: Examples) -> str | None:
    """Return the column by which texts that are alike can be kept together: a group, else the text itself."""
    columns = rows.tables[0].columns
    candidates = [rows.columns.group_by, *GROUPS]
    for name in candidates:
        if name in columns and name not in (rows.columns.text, rows.columns.label):
            values = rows.values(str(name))
            groups = {key: set[str]() for key in rows.keys if key is not None}
            for key, value in zip(rows.keys, values, strict=True):
                if key is not None:
                    groups[key].add(str(value))
            if len({str(value) for value in values}) >= 2 and all(len(each) == 1 for each in groups.values()):
                return name
    return rows.columns.text


def _lost(rows: Examples, max_length: int) -> Iterator[Fault]:
    """Yield rows that will lose their whole completion to truncation, by estimate."""
    chosen = np.flatnonzero(finders.lost(rows, max_length))
    if len(chosen):
        problem = f"by estimate the prompt alone has data.max_length={max_length} tokens or more"
        effect = "the completion is cut off and the row is left out of training; raise data.max_length"
        yield Fault("lost", "Completion cut off", chosen, f"{places(rows, chosen)}: {problem}: {effect}.")


def _long(rows: Examples, max_length: int) -> Iterator[Fault]:
    """Yield texts that will be truncated, by estimate."""
    is_lost = finders.lost(rows, max_length) if rows.columns.is_generative and rows.pair else np.zeros(len(rows), bool)
    chosen = np.flatnonzero(finders.long(rows, max_length) & ~is_lost)
    if len(chosen):
        pairs = rows.pair or [""] * len(rows)
        most = max(finders.tokens_of(rows.text[row]) + finders.tokens_of(pairs[row]) for row in chosen)
        problem = f"by estimate more than data.max_length={max_length} tokens (at most about {most:,.0f})"
        remedy = "what is beyond is not read; raise data.max_length or shorten the texts"
        yield Fault("long", "Texts too long", chosen, f"{places(rows, chosen)}: {problem}, and {remedy}.")


def _file(rows: Examples) -> str:
    """Return the names of the files."""
    names: Sequence[str] = [name for table in rows.tables for name in table.names]
    return printable(several(names, 3), 120)


def _shown(name: object) -> str:
    return printable(name, 40)


def held_out_count(rows: Examples) -> int:
    """Return how many rows are held out."""
    return int((rows.side == HELD_OUT).sum())
