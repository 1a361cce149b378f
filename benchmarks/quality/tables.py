"""What finished runs say: chosen rates, means, and paired differences with their intervals."""

from __future__ import annotations

import dataclasses
import json
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.quality.methods import METHODS, method_of
from benchmarks.quality.paired import paired_difference
from benchmarks.quality.runs import PARTS_PER_NAT

AGAINST = ("lora", "peft-lora", "peft-adalora", "random", "dynamic")
"""What every method is held against."""

Runs = dict[int, dict[str, Any]]
"""Runs of one cell by seed."""


def finished(kept: Path, purpose: str) -> list[dict[str, Any]]:
    """Return the finished runs of a purpose."""
    return [json.loads(path.read_text("utf-8")) for path in sorted(kept.glob(f"{purpose}-*.json"))]


MOST_RATES = 4
"""A method whose best rate lies at the edge of its grid tries further, until it has tried more than so many."""


def chosen_rate(kept: Path, model: str, task: str, method: str, rank: int) -> float | None:
    """Return the rate with the least mean loss on the tuning rows, None when nothing was tuned.

    A run that diverged counts with its loss, however large.
    """
    losses = _tuned(kept, model, task, method, rank)
    return min(losses, key=lambda lr: losses[lr]) if losses else None


def rate_beyond(kept: Path, model: str, task: str, method: str, rank: int) -> float | None:
    """Return the rate to try next where the best one lies at the edge of those that were tried, else None."""
    losses = _tuned(kept, model, task, method, rank)
    best = chosen_rate(kept, model, task, method, rank)
    if best is None or min(losses) < best < max(losses) or len(losses) > MOST_RATES:
        return None
    return best / 2 if best == min(losses) else best * 2


def _tuned(kept: Path, model: str, task: str, method: str, rank: int) -> dict[float, float]:
    """Return the mean loss on the tuning rows by rate."""
    losses: dict[float, list[float]] = defaultdict(list)
    for made in finished(kept, "tune"):
        job = made["job"]
        if (job["model"], job["task"], job["method"], job["rank"]) == (model, task, method, rank):
            losses[job["lr"]].append(made["metrics"]["loss"])
    return {lr: statistics.mean(values) for lr, values in losses.items()}


def summary(kept: Path) -> dict[str, Any]:
    """Return every cell (model, task, rank) with its methods and their differences, as plain values."""
    cells: dict[tuple[str, str, int], dict[str, Runs]] = defaultdict(lambda: defaultdict(dict))
    for made in finished(kept, "report"):
        job = made["job"]
        cells[job["model"], job["task"], job["rank"]][job["method"]][job["seed"]] = made
    found = [
        {"model": model, "task": task, "rank": rank, "methods": _methods(cell), "differences": _differences(cell)}
        for (model, task, rank), cell in sorted(cells.items())
    ]
    return {"cells": found, "rates": _rates(kept)}


def _methods(cell: Mapping[str, Runs]) -> list[dict[str, Any]]:
    """Return mean, spread and size of each method of a cell."""
    rows = []
    for name in _in_order(cell):
        runs = [cell[name][seed] for seed in sorted(cell[name])]
        loss = [made["metrics"]["loss"] for made in runs]
        accuracy = [made["metrics"]["accuracy"] for made in runs]
        rows.append(
            {
                "method": name,
                "seeds": sorted(cell[name]),
                "lr": runs[0]["job"]["lr"],
                "steps": runs[0]["job"]["steps"],
                "loss": statistics.mean(loss),
                "loss_by_seed": loss,
                "accuracy": statistics.mean(accuracy),
                "accuracy_by_seed": accuracy,
                "parameters": runs[0]["parameters"],
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
                {"method": name, "against": other, "verdict": loss.verdict}
                | {"loss": dataclasses.asdict(loss), "accuracy": dataclasses.asdict(right)}
            )
    return rows


def _losses(runs: Sequence[dict[str, Any]]) -> list[np.ndarray]:
    """Return every held-out row's loss of each run, nats."""
    return [np.array(made["loss"]) / PARTS_PER_NAT for made in runs]


def _right(runs: Sequence[dict[str, Any]]) -> list[np.ndarray]:
    """Return whether each held-out row was answered right, 0 or 1, of each run."""
    return [np.array(list(made["right"]), float) for made in runs]


def _rates(kept: Path) -> list[dict[str, Any]]:
    """Return what the tuning runs measured."""
    found = [
        {**{key: made["job"][key] for key in ("model", "task", "rank", "method", "lr", "seed")}}
        | {"loss": made["metrics"]["loss"]}
        for made in finished(kept, "tune")
    ]
    return sorted(found, key=lambda row: tuple(str(row[key]) for key in ("model", "task", "rank", "method")))


def show(figures: Mapping[str, Any]) -> None:
    """Print a table for each cell."""
    for cell in figures["cells"]:
        print(f"\n{cell['task']} on {cell['model']}, budget of rank {cell['rank']}")
        for row in cell["methods"]:
            label = method_of(row["method"]).label
            print(f"  {label:34} lr {row['lr']:<6g} {row['steps']:4} steps  loss {row['loss']:.4f}  accuracy "
                  f"{100 * row['accuracy']:.2f} %  {len(row['seeds'])} seeds")  # fmt: skip
        for row in cell["differences"]:
            loss, right = row["loss"], row["accuracy"]
            print(f"  {row['method']:>18} - {row['against']:13} loss {loss['mean']:+.4f} [{loss['low']:+.4f}, "
                  f"{loss['high']:+.4f}] {row['verdict']:6}  accuracy {100 * right['mean']:+.2f} "
                  f"[{100 * right['low']:+.2f}, {100 * right['high']:+.2f}]")  # fmt: skip
