"""Has allocation headroom? Fixed placements of rank against uniform LoRA, at exactly equal parameters.

    python -m benchmarks.headroom --data sentiment4 [--model minilm] [--rank 1] [--seeds 3] [--steps 300] [--lr 0.002]
    python -m benchmarks.headroom --methods ...     # `lora` and variants of `dynamic` in the place of placements

Arms: uniform, attention or MLP modules only, the first or the last half of the layers, each family of modules alone,
and random placements (see `benchmarks.placements`). All arms share batches, dropout and, by module, the draws of A.
Where no placement beats uniform, allocators have little to gain, and the task says little about them. The best of
twenty arms looks good by luck, so it is chosen on the first half of the seeds and reported on the others; with fewer
than four seeds it is chosen on half of the rows, which does not remove the luck of a seed. Results are written as runs
end.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from transformers.utils import logging as transformers_logging

from benchmarks import results
from benchmarks.allocators import ALLOCATORS
from benchmarks.fixed_run import measured, written_ranks
from benchmarks.placements import RANDOM_ARMS, Placement, arms
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


def main() -> None:
    """Train all arms on each seed, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="sentiment4", help="name or folder")
    parser.add_argument("--model", default="minilm")
    parser.add_argument("--rank", type=int, default=1)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=0, help="others than 0 get a file of results of their own")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--rows", type=int, default=1500, help="held-out examples, at most")
    parser.add_argument("--arms", default="", help="names separated by commas; empty: all")
    parser.add_argument(
        "--methods",
        nargs="?",
        const=";".join(ALLOCATORS),
        help="train variants of `dynamic`, not placements: names of `benchmarks.allocators`, separated by ;",
    )
    parser.add_argument("--quick", action="store_true", help="few steps, arms and rows: does it work, nothing more")
    arguments, _ = parser.parse_known_args()
    logging.disable(logging.WARNING)
    transformers_logging.disable_progress_bar()
    file = f"headroom-{Path(arguments.data).name}-r{arguments.rank}"
    file += f"-from-{arguments.first_seed}" if arguments.first_seed else ""
    if arguments.quick:
        arguments.steps, arguments.rows, arguments.seeds, file = 12, 100, 1, "headroom-quick"
        arguments.arms = "uniform,attention,mlp,random 1"
    if arguments.methods is not None:
        methods(arguments, f"{file}-methods")
        return
    placements = arms(modules_of(arguments.model, task_of(arguments)), arguments.rank, RANDOM_ARMS)
    wanted = [name for name in placements if not arguments.arms or name in arguments.arms.split(",")]
    runs: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as place:
        seeds = list(range(arguments.first_seed, arguments.first_seed + arguments.seeds))
        for seed in seeds:
            for name in wanted:
                ranks = written_ranks(placements[name].ranks, Path(place) / "ranks.json")
                strategy = {"name": "lora", "ranks_from": ranks}
                runs[f"{name}, seed {seed}"] = printed(name, seed, measured(values_of(arguments, seed, strategy)))
            write(file, runs, wanted, seeds[: seeds.index(seed) + 1], placements)
    report(write(file, runs, wanted, seeds, placements))


def printed(name: str, seed: int, run: dict[str, Any]) -> dict[str, Any]:
    """Print what a run came to, and return it."""
    print(f"{name}, seed {seed}: {np.mean(run.get('loss', np.nan)):.4f} in {run.get('seconds')} s", flush=True)
    return run


def methods(arguments: argparse.Namespace, file: str) -> None:
    """Train `lora` and variants of `dynamic` on each seed, and write their differences to `lora` and a control."""
    runs, rows = {}, {}
    wanted = [name for name in ALLOCATORS if name in arguments.methods.split(";")]
    seeds = list(range(arguments.first_seed, arguments.first_seed + arguments.seeds))
    for seed in seeds:
        for name in wanted:
            values = values_of(arguments, seed, ALLOCATORS[name])
            runs[f"{name}, seed {seed}"] = printed(name, seed, measured(values))
        losses = table_of(runs, wanted, seeds[: seeds.index(seed) + 1])
        rows = {
            name: {
                "loss": round(float(table.mean()), 5),
                "loss by seed": table.mean(1).round(5).tolist(),
                "parameters": runs[f"{name}, seed {seed}"]["parameters"],
            }
            | {
                f"loss - {other}": mean_and_ends(table - losses[other])
                for other in ("lora", "dynamic, random, first only")
                if other != name and other in losses
            }
            for name, table in losses.items()
        }
        results.write(
            file, {"seeds": seeds[: seeds.index(seed) + 1], "lr": arguments.lr, "methods": rows}, "benchmarks.headroom"
        )
    for name, row in rows.items():
        print(f"{name:30} {row}")


def write(
    file: str, runs: Mapping[str, Any], names: list[str], seeds: list[int], placements: Mapping[str, Placement]
) -> dict[str, Any]:
    """Write what was found so far and return the verdict."""
    decision = verdict(table_of(runs, names, seeds))
    kept = {
        name: {
            "loss": round(float(np.mean(run["loss"])), 5),
            "accuracy": round(float(np.mean(run["right"])), 5),
            "parameters": run["parameters"],
        }
        if "loss" in run
        else run
        for name, run in runs.items()
    }
    figures = {"verdict": decision, "conclusion": conclusion(decision), "runs": kept, "arms": about(placements)}
    results.write(file, figures, "benchmarks.headroom")
    return decision


if __name__ == "__main__":
    main()
