"""What a data-free distillation recorded: its teachers, the texts they wrote, and how near the student is to them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import pandas as pd
from pydantic import Field

from dynlora.analysis.stats import FEWEST_PAIRS, side_of_0
from dynlora.kinds.distil.settings import NOT_RECYCLE
from dynlora.kinds.recorded import (
    ALL,
    ByModel,
    BySource,
    Flag,
    Interval,
    Recorded,
    Rows,
    Short,
    SourcedResult,
    Tally,
    interval_of,
    text_of,
)
from dynlora.store.reader import RunReader
from dynlora.text import listed, plural, score, signed

TEXTS = "texts"
"""Kind of the event that holds some of the texts that a teacher wrote in a step."""

MAX_TEXT = 1000


class Sample(Recorded):
    """A text that a teacher wrote.

    Attributes:
        text: for reading, cut where it is long.
        tokens: that it has.
        ended: whether the teacher ended it.
    """

    text: Annotated[str, text_of(MAX_TEXT)] = ""
    tokens: Tally = 0
    ended: Flag = False


class Written(Recorded):
    """How far a teacher is with its texts.

    Attributes:
        teacher: position of the teacher.
        stage: samples, or held_out.
        texts, planned: written so far, and at the end.
        samples: some of them.
    """

    teacher: Tally = 0
    stage: Short = ""
    texts: Tally = Field(0, alias="of")
    planned: Tally = Field(0, alias="wanted")
    samples: Rows[Sample] = Field((), alias="texts")


class Counted(Recorded):
    """The texts of a teacher: how many, of how many tokens, and how many are empty or repeat another."""

    teacher: Short = ""
    stage: Short = ""
    texts: Tally = 0
    tokens: Tally = 0
    ended: Tally = 0
    empty: Tally = 0
    repeated: Tally = 0
    digest: Short = ""


class Distil(SourcedResult):
    """All that a distillation recorded.

    Attributes:
        samples, held_out, tokens, train_steps, rank: of its settings; 0 where unknown.
        start: what every text begins with, in words.
        written: of each stage and teacher as far as it is.
        counted: the texts of each teacher and stage, at the end.
        kl: KL(teacher || model) on held-out texts.
        kl_against_base, kl_against_average: paired differences of it.
        loss, loss_against_base, loss_against_average: of the held-out examples of the teachers' data.
    """

    KIND = "distil"
    EVENT = TEXTS
    STAGES = {
        "samples": "teachers write texts for the student",
        "held_out": "teachers write texts for the test",
        "student": "the student learns",
    }

    samples: Tally = 0
    held_out: Tally = 0
    tokens: Tally = 0
    train_steps: Tally = 0
    rank: Tally = 0
    start: Short = ""
    written: Rows[Written] = ()
    counted: Rows[Counted] = Field((), alias="texts")
    kl: ByModel = ()
    kl_against_base: ByModel = ()
    kl_against_average: ByModel = ()
    loss: BySource = ()
    loss_against_base: BySource = ()
    loss_against_average: BySource = ()

    @classmethod
    def more(cls, reader: RunReader, meta: Mapping[str, Any], payloads: list[dict[str, Any]]) -> dict[str, Any]:
        """Return the last texts of each stage and teacher."""
        written = map(Written.model_validate, payloads)
        return {"written": list({(one.stage, one.teacher): one for one in written}.values())}

    @property
    def is_tested(self) -> bool:
        """Whether its divergence is measured."""
        return bool(self.kl)

    def about(self) -> str:
        """Return the line under the title: who taught, and how much."""
        return f"Data-free distillation of {plural(len(self.sources), 'teacher')}, {self.samples:,} texts of each"

    def headline(self) -> str:
        """Return the conclusion in a sentence."""
        mine, base = (interval_of(self.kl, name) for name in (STUDENT, BASE))
        gap = interval_of(self.kl_against_base, STUDENT)
        if mine is None or base is None or gap is None:
            return "Not tested yet."
        sentence = f"KL {score(mine.mean)} nats per token instead of {score(base.mean)}, {_gap(gap)}"
        side = side_of_0(gap.low, gap.high, gap.n)
        if side == "few":
            return f"Too few texts to compare the student with the base model: {sentence}."
        if side == "below":
            return f"The student is nearer to its teachers than the base model: {sentence}."
        if side == "above":
            return f"The student is further from its teachers than the base model: {sentence}. Use the base model."
        return (
            f"The student is not significantly nearer to its teachers than the base model: {sentence}. "
            "Give it more steps."
        )

    def basis(self) -> str:
        """Return what the conclusion rests on."""
        gap = interval_of(self.kl_against_base, STUDENT)
        if gap is None:
            return WHAT
        parts = [
            f"Paired over {gap.n:,} texts that {plural(len(self.sources), 'teacher')} wrote for the test alone.",
            _average(self),
            _losses(self),
            NOT_RECYCLE,
            self.notes_text(),
        ]
        return " ".join(part for part in parts if part)


STUDENT, BASE, AVERAGED = "student", "base", "averaged"
ORDER = (STUDENT, BASE, AVERAGED)
"""Models in the order in which they are shown; teachers follow."""

OWN = "The teacher itself"
NAMES = {STUDENT: "Student", BASE: "Base model", AVERAGED: "Average of the adapters"}

STAGE_PURPOSES = {"samples": "for the student", "held_out": "for the test"}
"""What the texts of a stage are for."""


def teacher_name(result: Distil, run: str) -> str:
    """Return what a teacher is called, or all of them."""
    return "All teachers" if run == ALL else result.names().get(run, run)


def model_name(result: Distil, row: Interval) -> str:
    """Return what a model is called: one of `NAMES`, the teacher itself, or another teacher."""
    if row.model == row.source:
        return OWN
    return NAMES.get(row.model) or f"Teacher {teacher_name(result, row.model)}"


def frame_of(result: Distil, rows: Sequence[Interval]) -> pd.DataFrame:
    """Return rows as a table: columns method, model, teacher, mean, low, high, texts; all teachers first."""
    places = {method: place for place, method in enumerate(ORDER)}
    runs = {ALL: -1} | {one.run: place for place, one in enumerate(result.sources)}
    ordered = sorted(
        rows,
        key=lambda row: (
            runs.get(row.source, len(runs)),
            places.get(row.model, len(places) + (row.model != row.source)),
        ),
    )
    table = [
        (
            row.model,
            model_name(result, row),
            teacher_name(result, row.source),
            row.mean,
            row.low,
            row.high,
            row.n,
        )
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


def compared(result: Distil, rows: Sequence[Interval], against: Sequence[Interval]) -> Compared | None:
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
            teacher_name(result, result.sources[one.teacher].run),
            STAGE_PURPOSES.get(one.stage, one.stage),
            one.texts,
            one.planned,
        ]
        for one in result.written
        if one.teacher < len(result.sources)
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


def teachers_frame(result: Distil) -> pd.DataFrame:
    """Return the teachers: columns teacher, strategy, rank, run."""
    rows = [[one.name, one.strategy, one.rank, one.run] for one in result.sources]
    return pd.DataFrame(rows, columns=["teacher", "strategy", "rank", "run"])


WHAT = (
    f"{NOT_RECYCLE} One student, a LoRA of any rank, learns to give every next token the probability that the teacher "
    "gives it. No data is needed."
)


def _gap(row: Interval) -> str:
    low, mean, high = (signed(value, 3) for value in (row.low, row.mean, row.high))
    return f"{mean} (95 % CI {low} to {high})"


def _average(result: Distil) -> str:
    """Return how the student compares with the average of the adapters, which needs no training."""
    theirs, gap = interval_of(result.kl, AVERAGED), interval_of(result.kl_against_average, STUDENT)
    if theirs is None or gap is None:
        return ""
    value = score(theirs.mean)
    return {
        "below": f"The average of the adapters is further, {value}.",
        "above": f"The average of the adapters is nearer, {value}, and needs no training: use it.",
        "unclear": f"The average of the adapters is not significantly different, {value}, and needs no training.",
        "few": "",
    }[side_of_0(gap.low, gap.high, gap.n)]


def _losses(result: Distil) -> str:
    """Return on whose data the student's held-out loss is lower, and on whose higher, than base model's and average's.

    Nearer on the teachers' own texts is not nearer on their data: of the two, the data decide.
    """
    parts = []
    for rows, other in ((result.loss_against_base, "the base model's"), (result.loss_against_average, "the average's")):
        gaps = [row for row in rows if row.model == STUDENT and row.n >= FEWEST_PAIRS]
        sentences = _lower_and_higher(result, gaps)
        if sentences:
            parts.append(f"Its held-out loss against {other} is {sentences}.")
        elif gaps:
            parts.append(f"Its held-out loss on the teachers' data is not significantly different from {other}.")
    return " ".join(parts)


def _lower_and_higher(result: Distil, gaps: Sequence[Interval]) -> str:
    sides = {"lower": [row for row in gaps if row.high < 0], "higher": [row for row in gaps if row.low > 0]}
    return ", and ".join(
        f"{words} on the data of {listed([teacher_name(result, row.source) for row in rows])}"
        for words, rows in sides.items()
        if rows
    )
