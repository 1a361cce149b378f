"""What a decode recorded: who wrote each step of each solution, what the reward said, and what it took.

As little trusted as the rest of a run: a value of another kind counts as one that was never written, and a solution
that does not say which problem it solves is left out.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from operator import attrgetter
from typing import Any

from dynlora.store.meta import count, finite, is_count, items, short_text, table
from dynlora.store.reader import RunReader
from dynlora.store.rows import Event

DRAFT, TARGET = "draft", "target"
SOLVED = "problem"
"""Kind of the event that a solution is."""

MAX_POINTS, MAX_STEPS, MAX_TEXT = 256, 1_000, 20_000


@dataclass(frozen=True)
class Point:
    """A way of decoding: a rule with its value, or one of the writers alone.

    Attributes:
        key: in the record.
        accept: threshold, constant, clip or sigmoid; draft or target for one writer alone.
        value: of the rule; None for one writer alone.
    """

    key: str
    accept: str
    value: float | None


@dataclass(frozen=True)
class Step:
    """One step of a solution.

    Attributes:
        by: who wrote what is kept: draft or target.
        text: what is kept.
        tokens: of it.
        reward: of the draft's step; None where it was not judged.
        accepted: whether the draft's step was kept; None where one writer is alone.
        discarded: the draft's step, where it was not kept.
    """

    by: str
    text: str
    tokens: int
    reward: float | None
    accepted: bool | None
    discarded: str | None


@dataclass(frozen=True)
class Solution:
    """A problem solved at a point.

    Attributes:
        point: its key.
        problem: number of the problem, from 0.
        question, reference, answer: texts; empty where unknown.
        right: whether the answer is right; None where that is not known.
        ended: end, tokens or steps.
        steps: in order.
        draft_kept, draft_discarded, target: tokens decoded.
        prefilled: tokens read, by role.
        flops: of the decoded tokens.
        flops_with_prefill: of the tokens read too.
        seconds: of a clock.
    """

    point: str
    problem: int
    question: str
    reference: str
    answer: str
    right: bool | None
    ended: str
    steps: tuple[Step, ...]
    draft_kept: int
    draft_discarded: int
    target: int
    prefilled: Mapping[str, int]
    flops: float
    flops_with_prefill: float
    seconds: float


@dataclass(frozen=True)
class NestedRank:
    """How often the adapter cut to a rank chooses the word that the whole one chooses.

    Attributes:
        rank: largest of a module.
        share: of the parameters, 0 to 1.
        agreement: fraction of the tokens, 0 to 1.
    """

    rank: int
    share: float
    agreement: float


@dataclass(frozen=True)
class Decode:
    """All that a decode recorded.

    Attributes:
        points: in the order of the decode.
        roles: what is known of draft, target and reward: run, name, model, layers, parameters, kind.
        problems: how many each point is to solve.
        step_string: ends a step.
        solutions: so far, one per point and problem.
        nested: agreement of smaller adapters; empty where it was not measured.
    """

    points: tuple[Point, ...]
    roles: Mapping[str, Mapping[str, Any]]
    problems: int
    step_string: str
    solutions: tuple[Solution, ...]
    nested: tuple[NestedRank, ...]

    @cached_property
    def solved(self) -> Mapping[str, tuple[Solution, ...]]:
        """The solutions of each point that has any, by its key, in the order of the problems."""
        by_point: dict[str, list[Solution]] = {}
        for one in sorted(self.solutions, key=attrgetter("problem")):
            by_point.setdefault(one.point, []).append(one)
        return {key: tuple(rows) for key, rows in by_point.items()}


@dataclass
class SoFar:
    """What was read of a decode, so that the next look reads only what is new.

    Attributes:
        opened: how often a writer had opened it; a start or a resume deletes events, so all is read again after one.
        last: sequence number of the last event that was looked at.
        solutions: the last one of each point and problem.
    """

    opened: int = 0
    last: int = 0
    solutions: dict[tuple[str, int], Solution] = field(default_factory=dict[tuple[str, int], Solution])

    def read(self, reader: RunReader) -> tuple[Solution, ...]:
        """Return all solutions, those that are new read from the store.

        Raises:
            CorruptRunError: when the run cannot be read.
        """
        last, _, _, opened = reader.version_key()
        if opened != self.opened or last < self.last:
            self.opened, self.last, self.solutions = opened, 0, {}
        for event in reader.events(self.last, kinds=[SOLVED]):
            self.last = event.seq
            if (one := _solution(event)) is not None:
                self.solutions[one.point, one.problem] = one
        return tuple(self.solutions.values())


def read_decode(folder: str | os.PathLike[str], so_far: SoFar | None = None) -> Decode:
    """Return what a decode has recorded so far.

    Args:
        folder: of the run.
        so_far: what an earlier look at it read, brought up to date; None to read everything.

    Raises:
        RunNotFoundError: when there is no such run.
        CorruptRunError: when it cannot be read.
    """
    with RunReader(folder) as reader:
        meta = reader.meta(("decode", "nested_ranks"))
        solutions = (so_far or SoFar()).read(reader)
    plan = table(meta.get("decode"))
    points = tuple(_points(plan.get("points")))
    known = {point.key for point in points}
    return Decode(
        points=points,
        roles={role: table(value) for role, value in table(plan.get("roles")).items()},
        problems=count(plan.get("problems")),
        step_string=short_text(plan.get("step_string"), MAX_TEXT),
        solutions=tuple(one for one in solutions if one.point in known),
        nested=tuple(_nested(meta.get("nested_ranks"))),
    )


def _points(value: Any) -> list[Point]:
    rows = [table(row) for row in items(value, MAX_POINTS)]
    return [
        Point(short_text(row.get("key"), MAX_TEXT), short_text(row.get("accept"), MAX_TEXT), finite(row.get("value")))
        for row in rows
        if row.get("key")
    ]


def _solution(event: Event) -> Solution | None:
    """Return the solution that an event records; None where it does not say of which problem."""
    row = table(event.payload)
    tokens = table(row.get("tokens"))
    problem = row.get("problem")
    if not is_count(problem):
        return None
    return Solution(
        point=short_text(row.get("point"), MAX_TEXT),
        problem=count(problem),
        question=short_text(row.get("question"), MAX_TEXT),
        reference=short_text(row.get("reference"), MAX_TEXT),
        answer=short_text(row.get("answer"), MAX_TEXT),
        right=row["right"] if isinstance(row.get("right"), bool) else None,
        ended=short_text(row.get("ended"), MAX_TEXT),
        steps=tuple(_step(table(step)) for step in items(row.get("steps"), MAX_STEPS)),
        draft_kept=count(tokens.get("draft_kept")),
        draft_discarded=count(tokens.get("draft_discarded")),
        target=count(tokens.get("target")),
        prefilled={str(role): count(read) for role, read in table(row.get("prefilled")).items()},
        flops=finite(row.get("flops")) or 0.0,
        flops_with_prefill=finite(row.get("flops_with_prefill")) or 0.0,
        seconds=finite(row.get("seconds")) or 0.0,
    )


def _step(row: Mapping[str, Any]) -> Step:
    discarded = table(row.get("discarded"))
    return Step(
        by=TARGET if row.get("by") == TARGET else DRAFT,
        text=short_text(row.get("text"), MAX_TEXT),
        tokens=len(items(row.get("ids"), MAX_TEXT)),
        reward=finite(row.get("reward")),
        accepted=row["accepted"] if isinstance(row.get("accepted"), bool) else None,
        discarded=short_text(discarded.get("text"), MAX_TEXT) if discarded else None,
    )


def _nested(value: Any) -> list[NestedRank]:
    rows = [table(row) for row in items(value, MAX_POINTS)]
    values = [(count(row.get("rank")), finite(row.get("share")), finite(row.get("agreement"))) for row in rows]
    return [NestedRank(rank, share or 0.0, agreed) for rank, share, agreed in values if agreed is not None]


MOST_KEPT = 8
"""Decodes that are kept; what was looked at longest ago is forgotten."""


@dataclass
class _Kept:
    """What was read of a decode, and the lock of whoever reads on."""

    so_far: SoFar = field(default_factory=SoFar)
    lock: threading.Lock = field(default_factory=threading.Lock)


class GrowingDecodes:
    """What was read of decodes so far, over all viewers of a server."""

    def __init__(self) -> None:
        """Begin with none."""
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, _Kept] = OrderedDict()

    def read(self, folder: str | os.PathLike[str]) -> Decode:
        """Return what a decode has recorded so far; only what is new is read.

        Raises:
            RunNotFoundError: when there is no such run.
            CorruptRunError: when it cannot be read.
        """
        entry = self._of(os.path.realpath(folder))
        with entry.lock:
            return read_decode(folder, entry.so_far)

    def _of(self, folder: str) -> _Kept:
        with self._lock:
            entry = self._kept.setdefault(folder, _Kept())
            self._kept.move_to_end(folder)
            while len(self._kept) > MOST_KEPT:
                self._kept.popitem(last=False)
            return entry
