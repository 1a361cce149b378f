"""What a decode recorded: who wrote each step of each solution, what the reward said, and what it took.

As little trusted as the rest of a run: a value of another kind counts as one that was never written, and a solution
that does not say which problem it solves is left out.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from operator import attrgetter
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, model_validator

from dynlora.kinds.recorded import Number, Recorded, Rows, Tally, text_of
from dynlora.store.meta import finite, is_count, short_text, table
from dynlora.store.reader import RunReader

DRAFT, TARGET = "draft", "target"
SOLVED = "problem"
"""Kind of the event that a solution is."""

MAX_TEXT = 20_000

Text = Annotated[str, text_of(MAX_TEXT)]
"""A text of a solution; empty where it is unknown."""

Known = Annotated[bool | None, BeforeValidator(lambda value: value if isinstance(value, bool) else None)]
"""Whether something is so; None where that is not known."""

Amount = Annotated[float, BeforeValidator(lambda value: finite(value) or 0.0)]
"""What something took; 0 where it is unknown."""


def _discarded(value: Any) -> str | None:
    """Return the text of a step that was not kept; None where there is none."""
    step = table(value)
    return short_text(step.get("text"), MAX_TEXT) if step else None


class Point(Recorded):
    """A way of decoding: a rule with its value, or one of the writers alone.

    Attributes:
        key: in the record.
        accept: threshold, constant, clip or sigmoid; draft or target for one writer alone.
        value: of the rule; None for one writer alone.
    """

    key: Text = ""
    accept: Text = ""
    value: Number = None


class Step(Recorded):
    """One step of a solution.

    Attributes:
        by: who wrote what is kept: draft or target.
        text: what is kept.
        reward: of the draft's step; None where it was not judged.
        accepted: whether the draft's step was kept; None where one writer is alone.
        discarded: the draft's step, where it was not kept.
    """

    by: Annotated[str, BeforeValidator(lambda value: TARGET if value == TARGET else DRAFT)] = DRAFT
    text: Text = ""
    reward: Number = None
    accepted: Known = None
    discarded: Annotated[str | None, BeforeValidator(_discarded)] = None


class Solution(Recorded):
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

    point: Text = ""
    problem: Tally = 0
    question: Text = ""
    reference: Text = ""
    answer: Text = ""
    right: Known = None
    ended: Text = ""
    steps: Rows[Step] = ()
    draft_kept: Tally = 0
    draft_discarded: Tally = 0
    target: Tally = 0
    prefilled: Annotated[Mapping[str, Tally], BeforeValidator(table)] = Field(default_factory=dict[str, int])
    flops: Amount = 0.0
    flops_with_prefill: Amount = 0.0
    seconds: Amount = 0.0

    @model_validator(mode="before")
    @classmethod
    def _with_tokens(cls, value: Any) -> Any:
        return {**table(value), **table(table(value).get("tokens"))}


class NestedRank(Recorded):
    """How often the adapter cut to a rank chooses the word that the whole one chooses.

    Attributes:
        rank: largest of a module.
        share: of the parameters, 0 to 1.
        agreement: fraction of the tokens, 0 to 1; None where it was not measured.
    """

    rank: Tally = 0
    share: Amount = 0.0
    agreement: Number = None


class Decode(Recorded):
    """All that a decode recorded.

    Attributes:
        points: in the order of the decode.
        roles: what is known of draft, target and reward: run, name, model, layers, parameters, kind.
        problems: how many each point is to solve.
        step_string: ends a step.
        solutions: so far, one per point and problem.
        nested: agreement of smaller adapters; empty where it was not measured.
    """

    points: Rows[Point] = ()
    roles: Annotated[Mapping[str, Annotated[Mapping[str, Any], BeforeValidator(table)]], BeforeValidator(table)] = (
        Field(default_factory=dict[str, Mapping[str, Any]])
    )
    problems: Tally = 0
    step_string: Text = ""
    solutions: Rows[Solution] = ()
    nested: Rows[NestedRank] = ()

    @cached_property
    def solved(self) -> Mapping[str, tuple[Solution, ...]]:
        """The solutions of each point that has any, by its key, in the order of the problems."""
        solved: dict[str, list[Solution]] = {}
        for one in sorted(self.solutions, key=attrgetter("problem")):
            solved.setdefault(one.point, []).append(one)
        return {key: tuple(rows) for key, rows in solved.items()}


@dataclass
class SoFar:
    """What was read of a decode, so that the next look reads only what is new.

    Attributes:
        opened: how often a writer had opened it; a start or a resume deletes events, so all is read again after one.
        last: sequence number of the last event that was looked at.
        solutions: the last one of each point and problem.
        lock: of whoever reads on.
    """

    opened: int = 0
    last: int = 0
    solutions: dict[tuple[str, int], Solution] = field(default_factory=dict[tuple[str, int], Solution])
    lock: threading.Lock = field(default_factory=threading.Lock)

    def read(self, reader: RunReader) -> list[Solution]:
        """Return all solutions, those that are new read from the store.

        Raises:
            CorruptRunError: when the run cannot be read.
        """
        last, _, _, opened = reader.version_key()
        if opened != self.opened or last < self.last:
            self.opened, self.last, self.solutions = opened, 0, {}
        for event in reader.events(self.last, kinds=[SOLVED]):
            self.last = event.seq
            if is_count(table(event.payload).get("problem")):
                one = Solution.model_validate(event.payload)
                self.solutions[one.point, one.problem] = one
        return list(self.solutions.values())


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
    plan = Decode.model_validate({**table(meta.get("decode")), "nested": meta.get("nested_ranks")})
    points = tuple(point for point in plan.points if point.key)
    known = {point.key for point in points}
    nested = tuple(one for one in plan.nested if one.agreement is not None)
    return plan.model_copy(
        update={
            "points": points,
            "solutions": tuple(one for one in solutions if one.point in known),
            "nested": nested,
        }
    )


MOST_KEPT = 8
"""Decodes that are kept; what was looked at longest ago is forgotten."""


@lru_cache(MOST_KEPT)
def _so_far(folder: str) -> SoFar:
    """Return what was read of a decode so far, for all viewers of a server."""
    return SoFar()


def follow_decode(folder: str | os.PathLike[str]) -> Decode:
    """Return what a decode at work has recorded so far; only what is new is read.

    Raises:
        RunNotFoundError: when there is no such run.
        CorruptRunError: when it cannot be read.
    """
    so_far = _so_far(os.path.realpath(folder))
    with so_far.lock:
        return read_decode(folder, so_far)
