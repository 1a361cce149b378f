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
    places = {method: number for number, method in enumerate(ORDER)}
    runs = {ALL: -1} | {one.run: number for number, one in enumerate(result.teachers)}
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
            STAGES.get(one.stage, one.stage),
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
            STAGES.get(one.stage, one.stage),
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
