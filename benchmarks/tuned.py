"""Does an allocator beat `lora` when each has its own learning rate? Rates first, then seeds that chose nothing.

    python -m benchmarks.tuned --data CLINC150 [--model minilm] [--rank 1] [--steps 300] [--seeds 8]
        [--methods "lora;dynamic;dynamic, family"] [--rates 0.004,0.006,0.01,0.015,0.02,0.03] [--tuning-seeds 1]

Each method takes the rate with the least loss on the tuning seeds (1000, 1001, ...), which are used for nothing else.
A part of a method that `benchmarks.allocators` gives no rate of its own takes that of the whole. Then all train on the
seeds 1, 2, ... with the batches, the dropout and, by module, the draws of A in common. Intervals are Student's over
seeds and rows. Runs are kept below `benchmarks/out/tuned`, so that what was ended early continues.
"""

from __future__ import annotations

import argparse
import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
from transformers.utils import logging as transformers_logging

from benchmarks import results
from benchmarks.allocators import ALLOCATORS, tuned_as
from benchmarks.fixed_run import measured
from benchmarks.headroom import mean_and_ends, values_of

TUNING_SEED, FIRST_SEED = 1000, 1
RATES = "0.004,0.006,0.01,0.015,0.02,0.03"
METHODS = "lora;dynamic;dynamic, family;dynamic, family, first only;dynamic, random, first only"
COMPARED_WITH = ("lora", "dynamic", "dynamic, random, first only")


def kept_run(arguments: argparse.Namespace, method: str, seed: int, lr: float) -> dict[str, Any]:
    """Return what a run came to, from its file where it was made before."""
    data = Path(arguments.data).name
    key = f"{data}-{arguments.model}-r{arguments.rank}-{arguments.steps}-{arguments.rows}-{method}-{lr:g}-{seed}.json"
    kept = results.QUICK / "tuned" / key.replace(" ", "_")
    if kept.is_file():
        return json.loads(kept.read_text("utf-8"))
    found = measured(values_of(argparse.Namespace(**{**vars(arguments), "lr": lr}), seed, ALLOCATORS[method]))
    kept.parent.mkdir(parents=True, exist_ok=True)
    kept.write_text(json.dumps(found), "utf-8")
    loss, right = (float(np.mean(found.get(name, np.nan))) for name in ("loss", "right"))
    print(
        f"{method}, seed {seed}, rate {lr:g}: loss {loss:.4f}, right {right:.4f}, {found.get('seconds')} s", flush=True
    )
    return found


def curve_of(arguments: argparse.Namespace, method: str) -> dict[str, float | None]:
    """Return a method's mean loss at each rate over the tuning seeds; None where a run diverged."""
    curve: dict[str, float | None] = {}
    for lr in arguments.rates:
        runs = [kept_run(arguments, method, TUNING_SEED + seed, lr) for seed in range(arguments.tuning_seeds)]
        diverged = any("loss" not in run for run in runs)
        curve[f"{lr:g}"] = None if diverged else round(float(np.mean([run["loss"] for run in runs])), 5)
    return curve


def chosen_rate(curve: dict[str, float | None]) -> float:
    """Return the rate with the least loss."""
    return float(min((loss, lr) for lr, loss in curve.items() if loss is not None)[1])


def row_of(tables: dict[str, dict[str, np.ndarray]], method: str) -> dict[str, Any]:
    """Return a method's loss and accuracy, and their paired differences to what it is compared with."""
    row: dict[str, Any] = {}
    for what in ("loss", "right"):
        mine = tables[what][method]
        row[what] = round(float(mine.mean()), 5)
        row |= {
            f"{what} - {other}": mean_and_ends(mine - tables[what][other])
            for other in COMPARED_WITH
            if other != method and other in tables[what]
        }
    return {**row, "loss by seed": tables["loss"][method].mean(1).round(5).tolist()}


def compared(arguments: argparse.Namespace, chosen: dict[str, float], seeds: list[int]) -> dict[str, Any]:
    """Train every method at its rate on the seeds, and return a row each; a method that diverged says so."""
    runs = {
        method: [kept_run(arguments, method, seed, chosen[tuned_as(method)]) for seed in seeds]
        for method in arguments.methods
    }
    whole = {method: of for method, of in runs.items() if all("loss" in run for run in of)}
    tables = {
        what: {method: np.array([run[what] for run in of], float) for method, of in whole.items()}
        for what in ("loss", "right")
    }
    return {
        method: {"parameters": of[0]["parameters"], **row_of(tables, method)}
        if method in whole
        else {"diverged": sum("loss" not in run for run in of)}
        for method, of in runs.items()
    }


def arguments_of() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="sentiment4", help="name or folder")
    parser.add_argument("--model", default="minilm")
    parser.add_argument("--rank", type=int, default=1)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--tuning-seeds", type=int, default=1)
    parser.add_argument("--rows", type=int, default=1500, help="held-out examples, at most")
    parser.add_argument("--rates", default=RATES, help="separated by commas")
    parser.add_argument("--methods", default=METHODS, help="names of `benchmarks.allocators`, separated by ;")
    parser.add_argument("--name", help="of the file of results; tuned-DATA-rRANK")
    parser.add_argument("--quick", action="store_true", help="few steps and rows: does it work, nothing more")
    found, _ = parser.parse_known_args()
    if found.quick:
        found.steps, found.rows, found.seeds, found.rates = 12, 64, 2, "0.004,0.01"
        found.methods = "lora;dynamic"
    found.rates = [float(rate) for rate in found.rates.split(",")]
    found.methods = found.methods.split(";")
    return found


def main() -> None:
    """Tune, compare, print, write after every seed."""
    arguments = arguments_of()
    logging.disable(logging.WARNING)
    transformers_logging.disable_progress_bar()
    curves = {method: curve_of(arguments, method) for method in dict.fromkeys(map(tuned_as, arguments.methods))}
    chosen = {method: chosen_rate(curve) for method, curve in curves.items()}
    name = arguments.name or f"tuned-{Path(arguments.data).name}-r{arguments.rank}"
    name = "tuned-quick" if arguments.quick else name
    rows: dict[str, Any] = {}
    for count in range(2, arguments.seeds + 1):
        seeds = list(range(FIRST_SEED, FIRST_SEED + count))
        rows = compared(arguments, chosen, seeds)
        figures = {"seeds": seeds, "steps": arguments.steps, "rates": curves, "chosen": chosen, "methods": rows}
        results.write(name, figures, "benchmarks.tuned")
    for method, row in rows.items():
        print(f"{method:30} {json.dumps(row)}")


if __name__ == "__main__":
    main()
