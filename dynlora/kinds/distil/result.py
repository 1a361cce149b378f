"""What a data-free distillation recorded: its teachers, the texts they wrote, and how near the student is to them.

As little trusted as the rest of a run: a value of another kind counts as one that was never written.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dynlora.kinds.recycle.result import MAX_NAME, MAX_TEACHERS, Teacher, intervals_of, stage_of, teacher_of
from dynlora.store.meta import count, finite, items, short_text, table
from dynlora.store.reader import RunReader
from dynlora.store.rows import Event

TEXTS = "texts"
"""Kind of the event that holds some of the texts that a teacher wrote in a step."""

ALL = "all"
"""Stands for all teachers together."""

MAX_TEXT, MAX_SHOWN, MAX_STAGES = 1000, 16, 8


@dataclass(frozen=True)
class PerToken:
    """A mean over tokens in nats, or its difference from another, with the 95 % interval over texts.

    Attributes:
        method: the model: base, averaged, student, teacher, or the id of a teacher.
        teacher: whose texts or rows they are; `ALL` for those of all.
        mean, low, high: nats per token.
        texts: texts or rows that the interval is over.
    """

    method: str
    teacher: str
    mean: float
    low: float
    high: float
    texts: int


@dataclass(frozen=True)
class Sample:
    """A text that a teacher wrote.

    Attributes:
        text: for reading, cut where it is long.
        tokens: that it has.
        ended: whether the teacher ended it.
    """

    text: str
    tokens: int
    ended: bool


@dataclass(frozen=True)
class Written:
    """How far a teacher is with its texts, or what they are in the end.

    Attributes:
        teacher: position of the teacher.
        stage: samples, or held_out.
        texts, wanted: written so far, and at the end.
        samples: some of them.
    """

    teacher: int
    stage: str
    texts: int
    wanted: int
    samples: tuple[Sample, ...]


@dataclass(frozen=True)
class Counted:
    """The texts of a teacher: how many, of how many tokens, and how many are empty or repeat another."""

    teacher: str
    stage: str
    texts: int
    tokens: int
    ended: int
    empty: int
    repeated: int
    digest: str


@dataclass(frozen=True)
class Distil:
    """All that a distillation recorded.

    Attributes:
        teachers: in order.
        samples, held_out, tokens, train_steps, rank: of its settings; 0 where unknown.
        start: what every text begins with, in words.
        stages: (name, last step) of each, in order.
        written: of each stage and teacher as far as it is.
        counted: the texts of each teacher and stage, at the end.
        kl: KL(teacher || model) on held-out texts.
        kl_against_base, kl_against_average: paired differences of it.
        loss, loss_against_base, loss_against_average: of the held-out examples of the teachers' data.
        methods: what each model is called.
        minutes: estimated before the start; None where unknown.
        notes: what a person should know of the results.
    """

    teachers: tuple[Teacher, ...]
    samples: int
    held_out: int
    tokens: int
    train_steps: int
    rank: int
    start: str
    stages: tuple[tuple[str, int], ...]
    written: tuple[Written, ...]
    counted: tuple[Counted, ...]
    kl: tuple[PerToken, ...]
    kl_against_base: tuple[PerToken, ...]
    kl_against_average: tuple[PerToken, ...]
    loss: tuple[PerToken, ...]
    loss_against_base: tuple[PerToken, ...]
    loss_against_average: tuple[PerToken, ...]
    methods: Mapping[str, str]
    minutes: float | None
    notes: tuple[str, ...]


def read_distil(folder: str | os.PathLike[str]) -> Distil:
    """Return what a distillation has recorded so far.

    Raises:
        RunNotFoundError: when there is no such run.
        CorruptRunError: when it cannot be read.
    """
    with RunReader(folder) as reader:
        meta = reader.meta(("distil", "distil_results", "estimate"))
        events = reader.events(kinds=[TEXTS])
    plan, results = table(meta.get("distil")), table(meta.get("distil_results"))
    last = {(one.stage, one.teacher): one for one in map(_written, events)}
    return Distil(
        teachers=tuple(teacher_of(table(row)) for row in items(plan.get("teachers"), MAX_TEACHERS)),
        samples=count(plan.get("samples")),
        held_out=count(plan.get("held_out")),
        tokens=count(plan.get("tokens")),
        train_steps=count(plan.get("train_steps")),
        rank=count(plan.get("rank")),
        start=short_text(plan.get("start"), MAX_NAME),
        stages=tuple(stage_of(table(row)) for row in items(plan.get("stages"), MAX_STAGES)),
        written=tuple(last.values()),
        counted=tuple(_counted(table(row)) for row in items(results.get("texts"), 2 * MAX_TEACHERS)),
        kl=_per_token(results.get("kl")),
        kl_against_base=_per_token(results.get("kl_against_base")),
        kl_against_average=_per_token(results.get("kl_against_average")),
        loss=_per_token(results.get("loss"), by_teacher=True),
        loss_against_base=_per_token(results.get("loss_against_base"), by_teacher=True),
        loss_against_average=_per_token(results.get("loss_against_average"), by_teacher=True),
        methods={str(key): short_text(value, MAX_NAME) for key, value in table(results.get("methods")).items()},
        minutes=finite(table(meta.get("estimate")).get("minutes")),
        notes=tuple(short_text(note, 1000) for note in items(results.get("notes"), 200)),
    )


def _written(event: Event) -> Written:
    row = table(event.payload)
    texts = [table(one) for one in items(row.get("texts"), MAX_SHOWN)]
    samples = tuple(
        Sample(short_text(one.get("text"), MAX_TEXT), count(one.get("tokens")), one.get("ended") is True)
        for one in texts
    )
    stage = short_text(row.get("stage"), MAX_NAME)
    return Written(count(row.get("teacher")), stage, count(row.get("of")), count(row.get("wanted")), samples)


def _counted(row: Mapping[str, Any]) -> Counted:
    teacher, stage, digest = (short_text(row.get(key), MAX_NAME) for key in ("teacher", "stage", "digest"))
    texts, tokens, ended, empty, repeated = (
        count(row.get(key)) for key in ("texts", "tokens", "ended", "empty", "repeated")
    )
    return Counted(teacher, stage, texts, tokens, ended, empty, repeated, digest)


def _per_token(value: Any, *, by_teacher: bool = False) -> tuple[PerToken, ...]:
    """Return rows of a table by model and teacher, or by teacher and model."""
    return tuple(
        PerToken(*((key, outer) if by_teacher else (outer, key)), mean, low, high, count(row.get("texts")))
        for outer, key, mean, low, high, row in intervals_of(value)
    )
