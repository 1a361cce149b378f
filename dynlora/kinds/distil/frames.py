"""What a distillation says, as frames: divergence and loss by model, texts by teacher, KL over steps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from dynlora.kinds.distil.result import ALL, Distil, PerToken

STUDENT, BASE, AVERAGED = "student", "base", "averaged"
ORDER = (STUDENT, BASE, AVERAGED)
"""Models in the order in which they are shown; teachers follow."""

OWN = "The teacher itself"
NAMES = {STUDENT: "Student", BASE: "Base model", AVERAGED: "Average of the adapters"}

STAGES = {"samples": "for the student", "held_out": "for the test"}
"""What the texts of a stage are for."""


def teacher_names(found: Distil) -> dict[str, str]:
    """Return what each teacher is called, by its run; equal names get the end of the run's id."""
    times = Counter(one.name for one in found.teachers)
    return {one.run: one.name if times[one.name] == 1 else f"{one.name} ({one.run[-4:]})" for one in found.teachers}


def teacher_name(found: Distil, run: str) -> str:
    """Return what a teacher is called, or all of them."""
    return "All teachers" if run == ALL else teacher_names(found).get(run, run)


def model_name(found: Distil, row: PerToken) -> str:
    """Return what a model is called: one of `NAMES`, the teacher itself, or another teacher."""
    if row.method == row.teacher:
        return OWN
    return NAMES.get(row.method) or f"Teacher {teacher_name(found, row.method)}"


def row_of(rows: Sequence[PerToken], method: str, teacher: str = ALL) -> PerToken | None:
    """Return the row of a model and a teacher; None where it was not measured."""
    return next((row for row in rows if (row.method, row.teacher) == (method, teacher)), None)


def frame_of(found: Distil, rows: Sequence[PerToken]) -> pd.DataFrame:
    """Return rows as a table: columns method, model, teacher, mean, low, high, texts; all teachers first."""
    places = {method: place for place, method in enumerate(ORDER)}
    runs = {ALL: -1} | {one.run: place for place, one in enumerate(found.teachers)}
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
            "model": model_name(found, row),
            "teacher": teacher_name(found, row.teacher),
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


def compared(found: Distil, rows: Sequence[PerToken], against: Sequence[PerToken]) -> Compared | None:
    """Return rows with their differences from the base model's; None where nothing was measured."""
    frame, gaps = frame_of(found, rows), frame_of(found, against)
    if frame.empty:
        return None
    drawn = frame[frame["method"].isin(ORDER) | (frame["model"] == OWN)]
    title = "Difference from the base model, paired"
    return Compared(frame, drawn, {title: gaps.drop(columns="method")} if len(gaps) else {})


def written_frame(found: Distil) -> pd.DataFrame:
    """Return how far each teacher is with its texts: columns teacher, texts are, written, of."""
    rows = [
        [teacher_name(found, found.teachers[one.teacher].run), STAGES.get(one.stage, one.stage), one.texts, one.wanted]
        for one in found.written
        if one.teacher < len(found.teachers)
    ]
    return pd.DataFrame(rows, columns=["teacher", "texts are", "written", "of"])


def counted_frame(found: Distil) -> pd.DataFrame:
    """Return the texts of each teacher at the end: how many, of how many tokens, empty or repeated ones, the digest."""
    rows = [
        [
            teacher_name(found, one.teacher),
            STAGES.get(one.stage, one.stage),
            one.texts,
            one.tokens,
            one.ended,
            one.empty,
            one.repeated,
            one.digest[:12],
        ]
        for one in found.counted
    ]
    columns = ["teacher", "texts are", "texts", "tokens", "ended", "empty", "repeated", "SHA-256"]
    return pd.DataFrame(rows, columns=columns)


def stage_at(found: Distil, step: int) -> str:
    """Return the name of the stage that a step belongs to, the last one after the end."""
    return next((name for name, last in found.stages if step <= last), found.stages[-1][0] if found.stages else "")


def teachers_frame(found: Distil) -> pd.DataFrame:
    """Return the teachers: columns teacher, strategy, rank, run."""
    rows = [[one.name, one.strategy, one.rank, one.run] for one in found.teachers]
    return pd.DataFrame(rows, columns=["teacher", "strategy", "rank", "run"])
