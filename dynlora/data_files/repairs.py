"""Repairs carried out: rows left out, classes merged, the split drawn by groups; each is counted and said."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from dynlora.data_files import finders, similarity
from dynlora.data_files.examples import HELD_OUT, TRAIN, Examples, counted, places, quoted
from dynlora.data_files.opening import DROP_LONG_ROWS, refusal
from dynlora.data_files.similarity import PIECE, SHARE
from dynlora.text import listed

DropName = Literal[
    "drop_long_rows",
    "drop_empty_texts",
    "drop_empty_labels",
    "drop_duplicates",
    "drop_near_duplicates",
    "drop_similar",
    "drop_conflicts",
    "drop_shared",
    "drop_near_shared",
    "drop_similar_shared",
    "drop_rare",
    "drop_unseen",
    "drop_role_order",
    "drop_unanswered",
    "drop_shared_prompts",
]

LIKE = f"{SHARE:.0%} or more of their pieces of {PIECE} characters".replace("%", " %")
"""When two texts are alike, in words."""

DROPS: Mapping[str, str] = {
    "drop_long_rows": "rows of a CSV file with more cells than the header",
    "drop_empty_texts": "rows without a text",
    "drop_empty_labels": "rows without a label, or with one that is not a finite number, or beyond 1e18",
    "drop_duplicates": "rows that repeat text and label of an earlier row",
    "drop_near_duplicates": "rows that differ from an earlier row of their class by case, punctuation or spaces only",
    "drop_similar": f"rows that share {LIKE} with an earlier row of their class",
    "drop_conflicts": "all rows of a text that has several labels",
    "drop_shared": "training examples whose text is held out too",
    "drop_near_shared": "training examples that differ from a held-out text by case, punctuation or spaces only",
    "drop_similar_shared": f"training examples that share {LIKE} with a held-out text of their class",
    "drop_rare": "the row of a class that has only one",
    "drop_unseen": "held-out examples of a class that is never trained on",
    "drop_role_order": "conversations whose roles are out of order",
    "drop_unanswered": "conversations that do not end with an answer of the assistant",
    "drop_shared_prompts": "training examples whose prompt is held out too",
}
"""What each repair without values leaves out."""

WRITTEN_DROPS: Mapping[str, str] = {
    "drop_empty_texts": "rows without a text, prompt, completion or conversation",
    "drop_duplicates": "rows that repeat an earlier row",
    "drop_near_duplicates": "rows that differ from an earlier row by case, punctuation or spaces only",
    "drop_similar": f"rows that share {LIKE} with an earlier row",
    "drop_similar_shared": f"training examples that share {LIKE} with a held-out text",
}
"""The same where texts are to be written and there are no labels, as far as the words differ."""

LATE = ("drop_shared", "drop_near_shared", "drop_similar_shared", "drop_unseen", "drop_shared_prompts")
"""Repairs that need both sides: they come after the rows were split, all others before."""


class _Values(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", coerce_numbers_to_str=True)


class Merge(_Values):
    """Classes that become another class."""

    merge: dict[str, str] = Field(min_length=1, description="Class to the class it becomes.")


class SplitBy(_Values):
    """The held-out part is drawn by groups, so that no group is on both sides."""

    split_by: str = Field(min_length=1, max_length=200, description="Column of the groups.")


Repair = DropName | Merge | SplitBy
_ONE = TypeAdapter[Repair](Repair)

EXAMPLES = "merge: {Billing: billing}, split_by: thread"


def checked(value: Any) -> Any:
    """Return a list of repairs as it was given, where each is one; None for none.

    Raises:
        ValueError: one sentence that names the first that is none.
    """
    if value is None or value == [] or value == ():
        return None
    items = [value] if isinstance(value, str | Mapping) else value
    if not isinstance(items, Sequence):
        raise ValueError(f"data.repair={value}: must be a list of repairs; write for example [drop_duplicates]")
    for item in items:
        try:
            _ONE.validate_python(item)
        except ValidationError:
            text = str(item)[:80]
            unknown = f"data.repair={text}: unknown repair; use one of {', '.join(DROPS)}, {EXAMPLES}"
            raise ValueError(unknown) from None
    return tuple(items)


def plain(repair: Repair) -> Any:
    """Return a repair as a configuration holds it: a name, or a mapping of one key."""
    return repair if isinstance(repair, str) else repair.model_dump(mode="json")


@dataclass(frozen=True)
class Done:
    """A repair that was carried out.

    Attributes:
        repair: as the configuration holds it.
        count: rows it changed.
        sentence: what it did, in words.
    """

    repair: Any
    count: int
    sentence: str


@dataclass(frozen=True)
class Draw:
    """How the held-out part is drawn where the data has none of its own.

    Attributes:
        seed: of the run.
        fraction: of the rows that is held out.
    """

    seed: int = 0
    fraction: float = 0.1


def repaired(rows: Examples, repairs: Sequence[Repair], draw: Draw) -> tuple[Examples, list[Done]]:
    """Return the rows after all repairs, both sides known, and what was done.

    Repairs that need both sides come after the split, all others before it; among themselves they keep their order.

    Raises:
        DataError: when a repair cannot be carried out, or leaves too few rows.
    """
    done: list[Done] = []
    for repair in repairs:
        if repair not in LATE and not isinstance(repair, SplitBy):
            rows, outcome = _carried_out(rows, repair)
            done.append(outcome)
    group = next((repair.split_by for repair in repairs if isinstance(repair, SplitBy)), None)
    rows, outcomes = _split(rows, group, draw)
    done += outcomes
    for repair in repairs:
        if repair in LATE:
            rows, late = _carried_out(rows, repair)
            done.append(late)
    for side, part in ((TRAIN, "training"), (HELD_OUT, "held-out")):
        if not (rows.side == side).any():
            raise refusal(rows.tables[0].names[0], f"data.repair leaves no {part} row; remove a repair or add rows")
    return rows, done


def _carried_out(rows: Examples, repair: Repair) -> tuple[Examples, Done]:
    """Return the rows after one repair."""
    if isinstance(repair, Merge):
        changed = np.array([name in repair.merge for name in rows.classes], bool)
        words = ", ".join(f"{quoted(old)} into {quoted(new)}" for old, new in repair.merge.items())
        return rows.merged(repair.merge), Done(
            plain(repair), int(changed.sum()), f"Merged {words}: {counted(int(changed.sum()), 'row')}."
        )
    name = str(repair)
    if name == DROP_LONG_ROWS:
        lines = [line for table in rows.tables for line in table.left_out]
        where = f" (line{'s' * (len(lines) > 1)} {listed([f'{line:,}' for line in lines], 5)})" if lines else ""
        return rows, Done(name, len(lines), f"Left out {counted(len(lines), 'row')}: {DROPS[name]}{where}.")
    flags = finders.DROPPED_BY[name](rows)
    count = int(flags.sum())
    words = WRITTEN_DROPS.get(name, DROPS[name]) if rows.columns.is_generative else DROPS[name]
    where = f" ({places(rows, np.flatnonzero(flags))})" if count else ""
    return rows.take(~flags), Done(name, count, f"Left out {counted(count, 'row')}: {words}{where}.")


def _split(rows: Examples, group: str | None, draw: Draw) -> tuple[Examples, list[Done]]:
    """Return the rows with both sides, drawn where the data has none of its own."""
    name = rows.tables[0].names[0]
    if len(rows.tables) > 1:
        if group is not None:
            other = rows.tables[1].names[0]
            raise refusal(other, "is a held-out part of its own, so data.repair=split_by draws none; drop it")
        return rows, []
    if group is None:
        held_out = similarity.held_out_rows(name, len(rows), draw.seed, draw.fraction)
    else:
        held_out = similarity.held_out_groups(name, rows.values(group), draw.seed, draw.fraction)
    split = rows.with_side(np.where(held_out, HELD_OUT, TRAIN))
    if group is None:
        return split, []
    count = int(held_out.sum())
    sentence = f"Split by {group}: {counted(count, 'row')} held out, no value of {group} is on both sides."
    return split, [Done(plain(SplitBy(split_by=group)), count, sentence)]
