"""What finished runs say: chosen rates, means, and paired differences with their intervals."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.kept_runs import KeptRuns
from benchmarks.quality.methods import METHODS, rates_source
from benchmarks.quality.paired import paired_difference
from benchmarks.quality.runs import PARTS_PER_NAT, Job
from benchmarks.quality.tasks import TASKS

AGAINST = (
    "lora",
    "peft-lora",
    "peft-adalora",
    "random",
    "random-no-floor",
    "dynamic",
    "dynamic-no-floor",
)
"""What every method is held against."""

Runs = dict[int, dict[str, Any]]
"""Runs of one cell by seed."""


MOST_RATES = 4
"""A method whose best rate lies at the edge of its grid tries further, until it has tried more than so many."""


def chosen_rate(kept: KeptRuns, cell: Job) -> float | None:
    """Return the rate with the least mean loss on the tuning rows, None when nothing was tuned.

    A run that diverged counts with an infinite loss.

    Args:
        kept: the finished runs.
        cell: a run of the method, task, rank, model and length in question; its rate and seed do not matter.
    """
    losses = _tuned(kept, cell)
    return min(losses, key=lambda lr: losses[lr]) if losses else None


def rate_beyond(kept: KeptRuns, cell: Job) -> float | None:
    """Return the rate to try next where the best one lies at the edge of those that were tried, else None."""
    losses = _tuned(kept, cell)
    best = chosen_rate(kept, cell)
    if best is None or min(losses) < best < max(losses) or len(losses) > MOST_RATES:
        return None
    return best / 2 if best == min(losses) else best * 2


def tried(kept: KeptRuns, cell: Job) -> set[float]:
    """Return the rates that were tried on the tuning rows, see `chosen_rate`."""
    return set(_tuned(kept, cell))


def _tuned(kept: KeptRuns, cell: Job) -> dict[float, float]:
    """Return the mean loss on the tuning rows by rate."""
    losses: dict[float, list[float]] = defaultdict(list)
    for made in kept.finished("tune"):
        job = made["job"]
        if _cell_of(job) == (cell.model, cell.task, cell.rank, cell.full_steps) and job["method"] == cell.method:
            loss = made["metrics"]["loss"]
            losses[job["lr"]].append(math.inf if loss is None else loss)
    return {lr: statistics.mean(values) for lr, values in losses.items()}


def _cell_of(job: Mapping[str, Any]) -> tuple[str, str, int, int]:
    return job["model"], job["task"], job["rank"], job["steps"]


def summary(kept: KeptRuns, seeds: range | None = None) -> dict[str, Any]:
    """Return every cell (model, task, rank, steps) with its methods and their differences, as plain values.

    The rate that counts is the one that a method chose on the cell's tuning rows, else the one with the most runs.

    Args:
        kept: the finished runs.
        seeds: runs of others are left out.
    """
    cells: dict[tuple[str, str, int, int], dict[str, dict[float, Runs]]] = defaultdict(lambda: defaultdict(dict))
    for made in kept.finished("report"):
        job = made["job"]
        if seeds is not None and job["seed"] not in seeds:
            continue
        cells[_cell_of(job)][job["method"]].setdefault(job["lr"], {})[job["seed"]] = made
    summaries = []
    for (model, task, rank, steps), by_rate in sorted(cells.items()):
        cell = {}
        for name, runs in by_rate.items():
            where = Job("tune", task, rates_source(name), rank, 0, 0.0, model, steps)
            cell[name] = runs[_counting(kept, where, runs)]
        cell, diverged = _ended(cell)
        about = {"model": model, "task": task, "rank": rank, "steps": steps, "diverged": diverged}
        metric = TASKS[task].metric
        summaries.append(
            about | {"metric": metric, "methods": _methods(cell, metric), "differences": _differences(cell)}
        )
    return {"cells": summaries}


def _counting(kept: KeptRuns, cell: Job, runs: Mapping[float, Runs]) -> float:
    """Return the rate whose runs count, see `summary`."""
    wanted = chosen_rate(kept, cell)
    return wanted if wanted is not None and wanted in runs else max(runs, key=lambda lr: len(runs[lr]))


def _ended(cell: Mapping[str, Runs]) -> tuple[dict[str, Runs], dict[str, list[int]]]:
    """Return the runs of a cell that did not diverge, and the seeds of those that did."""
    whole = {name: {seed: made for seed, made in runs.items() if "diverged" not in made} for name, runs in cell.items()}
    gone = {name: sorted(set(runs) - set(whole[name])) for name, runs in cell.items()}
    return {name: runs for name, runs in whole.items() if runs}, {name: seeds for name, seeds in gone.items() if seeds}


def _methods(cell: Mapping[str, Runs], metric: str) -> list[dict[str, Any]]:
    """Return mean, spread and size of each method of a cell; `metric` is the one the task is judged by."""
    rows = []
    for name in _in_order(cell):
        runs = [cell[name][seed] for seed in sorted(cell[name])]
        loss = [made["metrics"]["loss"] for made in runs]
        accuracy = [made["metrics"]["accuracy"] for made in runs]
        active = [made["parameters"]["active"] + made["parameters"]["gate"] for made in runs]
        rows.append(
            {
                "method": name,
                "seeds": sorted(cell[name]),
                "lr": runs[0]["job"]["lr"],
                "steps": runs[0]["steps"],
                "loss": statistics.mean(loss),
                "loss_by_seed": loss,
                "accuracy": statistics.mean(accuracy),
                "accuracy_by_seed": accuracy,
                "f1": statistics.mean(made["metrics"].get("f1", math.nan) for made in runs),
                "judged": statistics.mean(made["metrics"].get(metric, math.nan) for made in runs),
                "budget": runs[0]["parameters"]["budget"],
                "parameters": [min(active), max(active)],
            }
        )
    return rows


def _in_order(cell: Mapping[str, Runs]) -> list[str]:
    """Return the methods of a cell: those that `METHODS` lists, then other strategies by name."""
    return [name for name in METHODS if name in cell] + sorted(set(cell) - set(METHODS))


def _differences(cell: Mapping[str, Runs]) -> list[dict[str, Any]]:
    """Return the paired differences in loss and accuracy of each method to what it is held against."""
    rows = []
    for name in _in_order(cell):
        for other in AGAINST:
            seeds = sorted(set(cell.get(name, {})) & set(cell.get(other, {})))
            if name == other or not seeds:
                continue
            mine, theirs = ([cell[side][seed] for seed in seeds] for side in (name, other))
            loss = paired_difference(_losses(mine), _losses(theirs))
            right = paired_difference(_right(mine), _right(theirs))
            rows.append(
                {"method": name, "against": other, "verdict": loss.verdict, "accuracy_verdict": right.verdict_of_gain}
                | {"loss": dataclasses.asdict(loss), "accuracy": dataclasses.asdict(right)}
            )
    return rows


def _losses(runs: Sequence[dict[str, Any]]) -> list[np.ndarray]:
    """Return every held-out row's loss of each run, nats."""
    return [np.array(made["loss"]) / PARTS_PER_NAT for made in runs]


def _right(runs: Sequence[dict[str, Any]]) -> list[np.ndarray]:
    """Return whether each held-out row was answered right, 0 or 1, of each run."""
    return [np.array(list(made["right"]), float) for made in runs]


def among(cell: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """Return a cell with these methods, and their differences among each other, alone."""
    methods = [row for row in cell["methods"] if row["method"] in names]
    differences = [row for row in cell["differences"] if {row["method"], row["against"]} <= set(names)]
    diverged = {name: seeds for name, seeds in cell["diverged"].items() if name in names}
    return {**cell, "methods": methods, "differences": differences, "diverged": diverged}
