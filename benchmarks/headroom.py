"""What fixed placements of rank show beside uniform LoRA at exactly equal parameters, and what runs of data share.

The best of many arms looks good by chance, so it is chosen on the first half of the seeds and reported on the others;
with fewer than four seeds it is chosen on half of the rows, which does not remove the luck of a seed.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.placements import Placement
from benchmarks.quality.paired import ENOUGH_SEEDS, half_width
from dynlora import assets
from dynlora.analysis.stats import normal_reach
from dynlora.engine.model.base_model import load_base
from dynlora.engine.model.modules import ModuleInfo, find_modules
from dynlora.tasks import Task

SPLIT_SEEDS = 4
"""With so many, the arm is chosen on some seeds and reported on others."""

Losses = Mapping[str, np.ndarray]
"""Losses of the held-out rows by arm, (seeds, rows) each."""


def modules_of(model: str, task: Task) -> list[ModuleInfo]:
    """Return the modules of a model that are adapted."""
    base = load_base(assets.resolve_model(model), task=task, seed=0)
    return find_modules(base.model, None, base.head)


def mean_and_ends(differences: np.ndarray) -> list[float]:
    """Return mean and Student's 95 % interval over seeds and rows; of one seed, over its rows alone."""
    if len(differences) > 1:
        mean, half = float(differences.mean()), half_width(differences)
    else:
        mean = float(differences.mean())
        half = normal_reach(differences.ravel())
    return [round(value, 5) for value in (mean, mean - half, mean + half)]


def halves(seeds: int, rows: int) -> tuple[Callable[[np.ndarray], np.ndarray], Callable[[np.ndarray], np.ndarray], str]:
    """Return what an arm is chosen on, what it is reported on, and in words which these are."""
    if seeds >= SPLIT_SEEDS:
        first = seeds // 2
        return lambda table: table[:first], lambda table: table[first:], f"{first} seeds, reported on {seeds - first}"
    order = np.random.default_rng(0).permutation(rows)
    one, other = order[: rows // 2], order[rows // 2 :]
    return lambda table: table[:, one], lambda table: table[:, other], "half of the rows, reported on the other half"


def verdict(losses: Losses) -> dict[str, Any]:
    """Return each arm's difference to uniform, the arm that was chosen, what it gains elsewhere, and a conclusion."""
    uniform = losses["uniform"]
    chosen_on, reported_on, words = halves(*uniform.shape)
    others = [name for name in losses if name != "uniform"]
    if len(others) == 1:  # nothing is chosen here
        chosen_on = reported_on = lambda table: table
        words = "other data"
    best = min(others, key=lambda name: float((chosen_on(losses[name]) - chosen_on(uniform)).mean()))
    difference = mean_and_ends(reported_on(losses[best]) - reported_on(uniform))
    return {
        "seeds": len(uniform),
        "rows": uniform.shape[1],
        "uniform loss": round(float(uniform.mean()), 5),
        "differences": {name: mean_and_ends(losses[name] - uniform) for name in others},
        "best": best,
        "chosen on": words,
        "best - uniform": difference,
        "has headroom": difference[2] < 0 and len(uniform) >= ENOUGH_SEEDS,
    }


def conclusion(decision: Mapping[str, Any]) -> str:
    """Return what the arms show in one sentence."""
    mean, low, high = decision["best - uniform"]
    if decision["has headroom"]:
        return (
            f"The best fixed placement ({decision['best']}) beats uniform by {-mean:.4f} nats "
            f"(95 % CI {-high:.4f} to {-low:.4f}), so allocation has headroom here (chosen on {decision['chosen on']})."
        )
    if decision["seeds"] < ENOUGH_SEEDS:
        return (
            f"Not decided, as runs differ and there are fewer than {ENOUGH_SEEDS} seeds: the best fixed placement, "
            f"{decision['best']}, differs from uniform by {mean:+.4f} nats (chosen on {decision['chosen on']}); "
            "train it and uniform on other seeds."
        )
    return (
        f"No fixed placement is shown to beat uniform: the best, {decision['best']}, differs by {mean:+.4f} nats "
        f"(95 % CI {low:+.4f} to {high:+.4f}; chosen on {decision['chosen on']}); the task is not used for this "
        "question."
    )


def report(decision: Mapping[str, Any]) -> None:
    """Print all arms, the worst last, and the conclusion."""
    seeds, rows = decision["seeds"], decision["rows"]
    print(f"\nuniform {decision['uniform loss']:.4f}, {seeds} seeds, {rows} rows; arm minus uniform:")
    for name, (mean, low, high) in sorted(decision["differences"].items(), key=lambda item: item[1][0]):
        print(f"  {name:34} {mean:+.4f} ({low:+.4f} to {high:+.4f})")
    print(conclusion(decision))


def table_of(runs: Mapping[str, Mapping[str, Any]], names: list[str], seeds: list[int]) -> dict[str, np.ndarray]:
    """Return the losses of the arms that every seed has, (seeds, rows) each; a run that diverged ends its arm."""
    tables = {}
    for name in names:
        mine = [runs.get(f"{name}, seed {seed}", {}).get("loss") for seed in seeds]
        if all(loss is not None for loss in mine):
            tables[name] = np.array(mine, float)
    return tables


SCALING_OF_ALL = 2
"""alpha / r of every arm: the default of the engine."""


def values_of(arguments: argparse.Namespace, seed: int, strategy: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of one run; the scaling is that of all arms."""
    data, rank = arguments.data, arguments.rank
    where = {"path": data} if Path(data).exists() else {"name": data}
    return {
        "seed": seed,
        "model": {"name": arguments.model},
        "data": {**where, "max_eval": arguments.rows},
        "adapter": {"rank": rank, "alpha": SCALING_OF_ALL * rank},
        "strategy": dict(strategy),
        "train": {"steps": arguments.steps, "lr": arguments.lr, "head_lr": None},
    }


def task_of(arguments: argparse.Namespace) -> Task:
    """Return the task of the data."""
    from dynlora.config import parse_config
    from dynlora.training.inputs import read_data

    return read_data(parse_config(values_of(arguments, 0, {"name": "lora"}))).task


def about(placements: Mapping[str, Placement]) -> dict[str, Any]:
    """Return the ranks of every arm, and the parameters outside of it."""
    return {name: {"ranks": dict(one.ranks), "outside": one.outside} for name, one in placements.items()}
