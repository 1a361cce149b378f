"""What a distillation says, in sentences: the conclusion, and what it does now."""

from __future__ import annotations

from collections.abc import Sequence

from dynlora.kinds.distil import frames
from dynlora.kinds.distil.result import Distil, PerToken
from dynlora.kinds.distil.settings import NOT_RECYCLE
from dynlora.text import listed, one_line, plural, rough_duration, score, signed

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
    mine, base = (frames.row_of(result.kl, name) for name in (frames.STUDENT, frames.BASE))
    gap = frames.row_of(result.kl_against_base, frames.STUDENT)
    if mine is None or base is None or gap is None:
        return "Not tested yet."
    numbers = f"KL {score(mine.mean)} nats per token instead of {score(base.mean)}, {_gap(gap)}"
    if gap.high < 0:
        return f"The student is nearer to its teachers than the base model: {numbers}."
    if gap.low > 0:
        return f"The student is further from its teachers than the base model: {numbers}. Use the base model."
    return (
        f"The student is not significantly nearer to its teachers than the base model: {numbers}. Give it more steps."
    )


def _gap(row: PerToken) -> str:
    low, mean, high = (signed(value, 3) for value in (row.low, row.mean, row.high))
    return f"{mean} (95 % CI {low} to {high})"


def basis(result: Distil) -> str:
    """Return what the conclusion rests on."""
    gap = frames.row_of(result.kl_against_base, frames.STUDENT)
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
    theirs, gap = frames.row_of(result.kl, frames.AVERAGED), frames.row_of(result.kl_against_average, frames.STUDENT)
    if theirs is None or gap is None:
        return ""
    if gap.high < 0:
        return f"The average of the adapters is further, {score(theirs.mean)}."
    if gap.low > 0:
        return f"The average of the adapters is nearer, {score(theirs.mean)}, and needs no training: use it."
    return f"The average of the adapters is not significantly different, {score(theirs.mean)}, and needs no training."


def _losses(result: Distil) -> str:
    """Return on whose data the student's held-out loss is lower, and on whose higher, than base model's and average's.

    Nearer on the teachers' own texts is not nearer on their data: of the two, the data decide.
    """
    parts = []
    for rows, other in ((result.loss_against_base, "the base model's"), (result.loss_against_average, "the average's")):
        gaps = [row for row in rows if row.method == frames.STUDENT]
        sides = _lower_and_higher(result, gaps)
        if sides:
            parts.append(f"Its held-out loss against {other} is {sides}.")
        elif gaps:
            parts.append(f"Its held-out loss on the teachers' data is not significantly different from {other}.")
    return " ".join(parts)


def _lower_and_higher(result: Distil, gaps: Sequence[PerToken]) -> str:
    sides = {"lower": [row for row in gaps if row.high < 0], "higher": [row for row in gaps if row.low > 0]}
    return ", and ".join(
        f"{side} on the data of {listed([frames.teacher_name(result, row.teacher) for row in rows])}"
        for side, rows in sides.items()
        if rows
    )


def progress(result: Distil, step: int) -> str:
    """Return what happens now, and the time that was estimated."""
    stage = frames.stage_at(result, step)
    minutes = "" if result.minutes is None else f"; estimated before the start: {rough_duration(60 * result.minutes)}"
    return f"Now {STAGES.get(stage, stage or 'loading')}{minutes}."
