"""What was found, as means with intervals and paired differences; written and printed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from benchmarks.recycle.setting import DROPPING, SOURCES
from benchmarks.recycle.work import Work
from dynlora.kinds.recycle.work.run import mean_and_interval


def methods(figures: dict[str, Any], seeds: int) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
    """Yield each method with the accuracy of its episodes by shots; of several seeds the mean of each episode."""
    accuracy = {name: {s: np.array(v) for s, v in of.items()} for name, of in figures["accuracy"].items()}
    for name in ("base", "linear head", "averaged"):
        if name in accuracy:
            yield name, accuracy[name]
    alone = [of for name, of in accuracy.items() if name.startswith("teacher ")]
    if alone:
        yield "best teacher", max(alone, key=lambda of: sum(float(values.mean()) for values in of.values()))
    for source in (*SOURCES, *DROPPING):
        runs = [accuracy[key] for seed in range(seeds) if (key := f"{source}, seed {seed}") in accuracy]
        if runs:
            yield source, {shots: np.mean([run[shots] for run in runs], axis=0) for shots in runs[0]}


def summary(work: Work) -> dict[str, Any]:
    """Return means, intervals and paired differences, by method and shots."""
    of = dict(methods(work.figures, work.setting.seeds))
    table: dict[str, Any] = {
        name: {shots: {"accuracy": three(values)} | _paired(of, name, shots) for shots, values in by_shots.items()}
        for name, by_shots in of.items()
    }
    if "real" in of and "inverted" in of:
        for shots in of["real"]:
            gains = [float((of[name][shots] - of["base"][shots]).mean()) for name in ("inverted", "real")]
            table["inverted"][shots]["share of the gain of real data"] = gains[0] / gains[1] if gains[1] else None
    return {
        "setting": vars(work.setting),
        "methods": table,
        "cpu_seconds": work.figures["seconds"],
        "agreement": work.figures.get("agreement", {}),
        "first_episodes": work.figures.get("first_episodes", {}),
    }


def _paired(of: dict[str, dict[str, np.ndarray]], name: str, shots: str) -> dict[str, list[float]]:
    """Return the differences of a method to those it is held against, on the same episodes."""
    half, whole = DROPPING
    others = ["base", "noise", "averaged", *([whole] if name == half else [])]
    return {
        f"against {other}": three(of[name][shots] - of[other][shots])
        for other in others
        if other in of and other != name
    }


def three(values: np.ndarray) -> list[float]:
    """Return mean and ends of the 95 % interval over episodes."""
    estimate = mean_and_interval(values)
    return [estimate["mean"], estimate["low"], estimate["high"]]


def report(figures: dict[str, Any]) -> None:
    """Print the table."""
    for name, by_shots in figures["methods"].items():
        for shots, row in by_shots.items():
            mean, low, high = row["accuracy"]
            line = f"{name:14} {shots}-shot {mean:.4f} ({low:.4f} to {high:.4f})"
            for key, value in row.items():
                if key.startswith("against"):
                    line += f"   {key} {value[0]:+.4f} ({value[1]:+.4f} to {value[2]:+.4f})"
            print(line)
