"""What a recycle says, as frames: agreement by class, few-shot accuracy by method, episodes, prototypes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from dynlora.kinds.recycle.result import Accuracy, Recycle
from dynlora.store import queries

META, BASE = "meta", "base"
ORDER = (META, BASE, "averaged", "best_teacher", "noise")
"""Methods in the order in which they are shown."""

NAMES = {
    META: "Meta-LoRA",
    BASE: "Base model",
    "averaged": "Average of the adapters",
    "best_teacher": "Best teacher",
    "noise": "Meta-LoRA on noise (control)",
}

LOW = 0.95
"""Agreement below this is named: the teacher does not see its class in the inputs."""

MOST_NAMED = 24
"""Classes that an axis can name."""

POINTS = 600
"""Most points of a series."""

WINDOW = 15
"""Episodes of which the band of their accuracy is made."""


def method_name(method: str) -> str:
    """Return what a method is called."""
    return NAMES.get(method, method.replace("_", " ").capitalize())


@dataclass(frozen=True)
class Better:
    """A method that is better than the meta-LoRA at a number of examples: its interval is above that one's.

    Attributes:
        method: which.
        shots: examples per class.
        other: its mean accuracy.
        meta: that of the meta-LoRA.
    """

    method: str
    shots: int
    other: float
    meta: float


def better_than_meta(result: Recycle) -> list[Better]:
    """Return every method that is better than the meta-LoRA, at each number of examples, the fewest first."""
    mine = {row.shots: row for row in result.accuracy if row.method == META}
    pairs = [
        Better(row.method, row.shots, row.mean, mine[row.shots].mean)
        for row in result.accuracy
        if row.shots in mine and row.low > mine[row.shots].high
    ]
    return sorted(pairs, key=lambda pair: pair.shots)


def always_better(result: Recycle) -> str | None:
    """Return the method that is better than the meta-LoRA at all its numbers of examples; the best of several."""
    tested = {row.shots for row in result.accuracy if row.method == META}
    pairs = better_than_meta(result)
    sums: dict[str, float] = {}
    for method in {pair.method for pair in pairs}:
        own = {pair.shots: pair.other for pair in pairs if pair.method == method}
        if own.keys() == tested:
            sums[method] = sum(own.values())
    return max(sums, key=lambda method: (sums[method], method), default=None)


def agreement_frame(result: Recycle, folder: Path) -> pd.DataFrame:
    """Return the last agreement of each class, the lowest first: columns class, teacher, agreement.

    Args:
        result: of the recycle.
        folder: of the run.
    """
    try:
        last = queries.signal_at(folder, "class_agreement", [queries.run_summary(folder)["max_steps"]]).iloc[:, 0]
    except KeyError:
        return pd.DataFrame(columns=["class", "teacher", "agreement"])
    rows = [
        {"class": name.partition(" / ")[2] or name, "teacher": name.partition(" / ")[0], "agreement": value}
        for name, value in zip(result.classes, last.tolist(), strict=False)
    ]
    frame = pd.DataFrame(rows, columns=["class", "teacher", "agreement"])
    return frame.sort_values(["agreement", "teacher", "class"], kind="stable").reset_index(drop=True)


def accuracy_frame(rows: tuple[Accuracy, ...]) -> pd.DataFrame:
    """Return few-shot accuracies, or differences of them, with methods in the order of `ORDER`.

    Columns: method, name, shots, mean, low, high.
    """
    places = {method: number for number, method in enumerate(ORDER)}
    ordered = sorted(rows, key=lambda row: (row.shots, places.get(row.method, len(places)), row.method))
    table = [
        {
            "method": row.method,
            "name": method_name(row.method),
            "shots": row.shots,
            "mean": row.mean,
            "low": row.low,
            "high": row.high,
        }
        for row in ordered
    ]
    return pd.DataFrame(table, columns=["method", "name", "shots", "mean", "low", "high"])


def episodes_frame(scalars: pd.DataFrame) -> pd.DataFrame:
    """Return the episodes' accuracy with a band of its spread: columns step, value, mean, low, high.

    The band is the mean over `WINDOW` episodes, one standard deviation up and down, within 0 and 1.

    Args:
        scalars: as `queries.scalars_frame` returns them.
    """
    rows = scalars[(scalars["name"] == "episode_accuracy") & (scalars["split"] == META)][["step", "value"]]
    window = rows["value"].rolling(WINDOW, min_periods=1, center=True)
    mean, spread = window.mean(), window.std().fillna(0.0)
    return rows.assign(mean=mean, low=(mean - spread).clip(0, 1), high=(mean + spread).clip(0, 1)).reset_index(
        drop=True
    )


def places_frame(result: Recycle) -> pd.DataFrame:
    """Return the prototypes in the plane: columns teacher, class, x, y."""
    rows = [{"teacher": one.teacher, "class": one.name, "x": one.x, "y": one.y} for one in result.places]
    return pd.DataFrame(rows, columns=["teacher", "class", "x", "y"])


def stage_at(result: Recycle, step: int) -> str:
    """Return the name of the stage that a step belongs to, the last one after the end."""
    return next((name for name, last in result.stages if step <= last), result.stages[-1][0] if result.stages else "")


def teachers_frame(result: Recycle) -> pd.DataFrame:
    """Return the teachers: columns teacher, classes, strategy, rank, run."""
    rows = [[one.name, len(one.classes), one.strategy, one.rank, one.run] for one in result.teachers]
    return pd.DataFrame(rows, columns=["teacher", "classes", "strategy", "rank", "run"])
