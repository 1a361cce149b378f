"""What a data-free distillation recorded: its teachers, the texts they wrote, and how near the student is to them.

As little trusted as the rest of a run: a value of another kind counts as one that was never written.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from dynlora.analysis.stats import FEWEST_PAIRS, side_of_0
from dynlora.kinds.distil.settings import NOT_RECYCLE
from dynlora.kinds.recycle.result import MAX_NAME, MAX_TEACHERS, Teacher, intervals_of, stage_of, teacher_of
from dynlora.store.meta import count, finite, items, short_text, table
from dynlora.store.reader import RunReader
from dynlora.store.rows import Event
from dynlora.text import listed, one_line, plural, rough_duration, score, signed

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


STUDENT, BASE, AVERAGED = "student", "base", "averaged"
ORDER = (STUDENT, BASE, AVERAGED)
"""Models in the order in which they are shown; teachers follow."""

OWN = "The teacher itself"
NAMES = {STUDENT: "Student", BASE: "Base model", AVERAGED: "Average of the adapters"}

STAGE_PURPOSES = {"samples": "for the student", "held_out": "for the test"}
"""What the texts of a stage are for."""


def teacher_names(result: Distil) -> dict[str, str]:
    """Return what each teacher is called, by its run; equal names get the end of the run's id."""
    times = Counter(one.name for one in result.teachers)
    return {one.run: one.name if times[one.name] == 1 else f"{one.name} ({one.run[-4:]})" for one in result.teachers}


def teacher_name(result: Distil, run: str) -> str:
    """Return what a teacher is called, or all of them."""
    return "All teachers" if run == ALL else teacher_names(result).get(run, run)


def model_name(result: Distil, row: PerToken) -> str:
    """Return what a model is called: one of `NAMES`, the teacher itself, or another teacher."""
    if row.method == row.teacher:
        return OWN
    return NAMES.get(row.method) or f"Teacher {teacher_name(result, row.method)}"


def row_of(rows: Sequence[PerToken], method: str, teacher: str = ALL) -> PerToken | None:
    """Return the row of a model and a teacher; None where it was not measured."""
    return next((row for row in rows if (row.method, row.teacher) == (method, teacher)), None)


def frame_of(result: Distil, rows: Sequence[PerToken]) -> pd.DataFrame:
    """Return rows as a table: columns method, model, teacher, mean, low, high, texts; all teachers first."""
    places = {method: place for place, method in enumerate(ORDER)}
    runs = {ALL: -1} | {one.run: place for place, one in enumerate(result.teachers)}
    ordered = sorted(
        rows,
        key=lambda row: (
            runs.get(row.teacher, len(runs)),
            places.get(row.method, len(places) + (row.method != row.teacher)),
        ),
    )
    table = [
        {
            "method": row.method,
            "model": model_name(result, row),
            "teacher": teacher_name(result, row.teacher),
            "mean": row.mean,
            "low": row.low,
            "high": row.high,
            "texts": row.texts,
        }
        for row in ordered
    ]
    return pd.DataFrame(table, columns=["method", "model", "teacher", "mean", "low", "high", "texts"])


@dataclass(frozen=True)
class Compared:
    """A number of several models for each teacher.

    Attributes:
        rows: as `frame_of` returns them.
        drawn: those of student, base model, average, and of each teacher on its own texts or data.
        differences: paired, from the base model's, by the title of their table.
    """

    rows: pd.DataFrame
    drawn: pd.DataFrame
    differences: Mapping[str, pd.DataFrame]


def compared(result: Distil, rows: Sequence[PerToken], against: Sequence[PerToken]) -> Compared | None:
    """Return rows with their differences from the base model's; None where nothing was measured."""
    frame, gaps = frame_of(result, rows), frame_of(result, against)
    if frame.empty:
        return None
    drawn = frame[frame["method"].isin(ORDER) | (frame["model"] == OWN)]
    title = "Difference from the base model, paired"
    return Compared(frame, drawn, {title: gaps.drop(columns="method")} if len(gaps) else {})


def written_frame(result: Distil) -> pd.DataFrame:
    """Return how far each teacher is with its texts: columns teacher, texts are, written, of."""
    rows = [
        [
            teacher_name(result, result.teachers[one.teacher].run),
            STAGE_PURPOSES.get(one.stage, one.stage),
            one.texts,
            one.wanted,
        ]
        for one in result.written
        if one.teacher < len(result.teachers)
    ]
    return pd.DataFrame(rows, columns=["teacher", "texts are", "written", "of"])


def counted_frame(result: Distil) -> pd.DataFrame:
    """Return the texts of each teacher at the end: how many, of how many tokens, empty or repeated ones, the digest."""
    rows = [
        [
            teacher_name(result, one.teacher),
            STAGE_PURPOSES.get(one.stage, one.stage),
            one.texts,
            one.tokens,
            one.ended,
            one.empty,
            one.repeated,
            one.digest[:12],
        ]
        for one in result.counted
    ]
    columns = ["teacher", "texts are", "texts", "tokens", "ended", "empty", "repeated", "SHA-256"]
    return pd.DataFrame(rows, columns=columns)


def stage_at(result: Distil, step: int) -> str:
    """Return the name of the stage that a step belongs to, the last one after the end."""
    return next((name for name, last in result.stages if step <= last), result.stages[-1][0] if result.stages else "")


def teachers_frame(result: Distil) -> pd.DataFrame:
    """Return the teachers: columns teacher, strategy, rank, run."""
    rows = [[one.name, one.strategy, one.rank, one.run] for one in result.teachers]
    return pd.DataFrame(rows, columns=["teacher", "strategy", "rank", "run"])


WHAT = (
    f"{NOT_RECYCLE} One student, a LoRA of any rank, learns to give every next token the probability that the teacher "
    "gives it. No data is needed."
)

STAGES = {
    "samples": "teachers write texts for the student",
    "held_out": "teachers write texts for the test",
    "student": "the student learns",
}
"""What happens in each stage."""


def about(result: Distil) -> str:
    """Return the line under the title: who taught, and how much."""
    return f"Data-free distillation of {plural(len(result.teachers), 'teacher')}, {result.samples:,} texts of each"


def headline(result: Distil) -> str:
    """Return the conclusion in a sentence."""
    mine, base = (row_of(result.kl, name) for name in (STUDENT, BASE))
    gap = row_of(result.kl_against_base, STUDENT)
    if mine is None or base is None or gap is None:
        return "Not tested yet."
    sentence = f"KL {score(mine.mean)} nats per token instead of {score(base.mean)}, {_gap(gap)}"
    side = side_of_0(gap.low, gap.high, gap.texts)
    if side == "few":
        return f"Too few texts to compare the student with the base model: {sentence}."
    if side == "below":
        return f"The student is nearer to its teachers than the base model: {sentence}."
    if side == "above":
        return f"The student is further from its teachers than the base model: {sentence}. Use the base model."
    return (
        f"The student is not significantly nearer to its teachers than the base model: {sentence}. Give it more steps."
    )


def _gap(row: PerToken) -> str:
    low, mean, high = (signed(value, 3) for value in (row.low, row.mean, row.high))
    return f"{mean} (95 % CI {low} to {high})"


def basis(result: Distil) -> str:
    """Return what the conclusion rests on."""
    gap = row_of(result.kl_against_base, STUDENT)
    if gap is None:
        return WHAT
    notes = one_line(" ".join(f"{note[:1].upper()}{note[1:]}." for note in result.notes), 600)
    parts = [
        f"Paired over {gap.texts:,} texts that {plural(len(result.teachers), 'teacher')} wrote for the test alone.",
        _average(result),
        _losses(result),
        NOT_RECYCLE,
        notes,
    ]
    return " ".join(part for part in parts if part)


def _average(result: Distil) -> str:
    """Return how the student compares with the average of the adapters, which needs no training."""
    theirs, gap = row_of(result.kl, AVERAGED), row_of(result.kl_against_average, STUDENT)
    if theirs is None or gap is None:
        return ""
    value = score(theirs.mean)
    return {
        "below": f"The average of the adapters is further, {value}.",
        "above": f"The average of the adapters is nearer, {value}, and needs no training: use it.",
        "unclear": f"The average of the adapters is not significantly different, {value}, and needs no training.",
        "few": "",
    }[side_of_0(gap.low, gap.high, gap.texts)]


def _losses(result: Distil) -> str:
    """Return on whose data the student's held-out loss is lower, and on whose higher, than base model's and average's.

    Nearer on the teachers' own texts is not nearer on their data: of the two, the data decide.
    """
    parts = []
    for rows, other in ((result.loss_against_base, "the base model's"), (result.loss_against_average, "the average's")):
        gaps = [row for row in rows if row.method == STUDENT and row.texts >= FEWEST_PAIRS]
        sentences = _lower_and_higher(result, gaps)
        if sentences:
            parts.append(f"Its held-out loss against {other} is {sentences}.")
        elif gaps:
            parts.append(f"Its held-out loss on the teachers' data is not significantly different from {other}.")
    return " ".join(parts)


def _lower_and_higher(result: Distil, gaps: Sequence[PerToken]) -> str:
    sides = {"lower": [row for row in gaps if row.high < 0], "higher": [row for row in gaps if row.low > 0]}
    return ", and ".join(
        f"{words} on the data of {listed([teacher_name(result, row.teacher) for row in rows])}"
        for words, rows in sides.items()
        if rows
    )


def progress(result: Distil, step: int) -> str:
    """Return what happens now, and the time that was estimated."""
    stage = stage_at(result, step)
    minutes = "" if result.minutes is None else f"; estimated before the start: {rough_duration(60 * result.minutes)}"
    return f"Now {STAGES.get(stage, stage or 'loading')}{minutes}."
