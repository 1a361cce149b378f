"""What a distillation says, in sentences: the conclusion, and what it does now."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from dynlora.analysis.stats import FEWEST_PAIRS, side_of_0
from dynlora.kinds.distil.result import ALL, Distil, PerToken
from dynlora.kinds.distil.settings import NOT_RECYCLE
from dynlora.text import listed, one_line, plural, rough_duration, score, signed

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
