"""Repairs carried out: rows left out, classes merged, the split drawn by groups; each is counted and said."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dynlora.data_files import finders, splitting
from dynlora.data_files.examples import HELD_OUT, TRAIN, Examples, counted, places, quoted
from dynlora.data_files.opening import refusal
from dynlora.data_files.repair_list import DROPS, LATE, WRITTEN_DROPS, Merge, Repair, SplitBy, plain


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
        held_out = splitting.held_out_rows(name, len(rows), draw.seed, draw.fraction)
    else:
        held_out = splitting.held_out_groups(name, rows.values(group), draw.seed, draw.fraction)
    split = rows.with_side(np.where(held_out, HELD_OUT, TRAIN))
    if group is None:
        return split, []
    count = int(held_out.sum())
    sentence = f"Split by {group}: {counted(count, 'row')} held out, no value of {group} is on both sides."
    return split, [Done(plain(SplitBy(split_by=group)), count, sentence)]
