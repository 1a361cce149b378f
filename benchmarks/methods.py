"""Every registered method beside the others at equal budget: held-out loss, accuracy, parameters, time and memory.

python -m benchmarks.methods --data GLUE [--tasks sentiment4,mrpc] [--rank 4] [--seeds 3]

Quality: as `benchmarks.quality` does it, each method with the rate it chooses on rows of train of the first task; runs
that are there are not trained again. Time: a step of the method and a step of `lora` in turn, in one
process over a whole schedule of 60 steps, median of the paired ratios, recording on. What a median hides stands apart:
the ratio of the sums, in which phases of a schedule count, the seconds before the first step beyond `lora`'s, those of
the last edits, and the longest of the timed steps. Memory: the greatest resident size of
a process that takes a few steps, less that of `lora`'s; beside it the parameters that room is held for.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator

from benchmarks import results
from benchmarks.kept_runs import KeptRuns
from benchmarks.quality import tables
from benchmarks.quality.markdown import methods_table
from benchmarks.quality.methods import GRIDS, REPORTING_SEEDS, rates_source
from benchmarks.quality.runs import Job
from benchmarks.quality.side_by_side import carry_out
from benchmarks.step_variants import OurStep, Setting, model_folder, write_data
from dynlora import strategies
from dynlora.training.build import make_accelerator

KEPT = KeptRuns.of("quality")
LENGTH, WARM_UP = 64, 3
SCHEDULE = 60
"""Steps that phases of a method span where steps are timed."""

PROCESSES = 5
"""Processes whose memory is taken, for the median."""


def setting(folder: Path, rounds: int, rank: int, batch_size: int) -> Setting:
    """Return what a step is timed at."""
    return Setting(
        model=model_folder("minilm"),
        folder=folder,
        precision="bf16",
        length=LENGTH,
        dropout=True,
        batch_size=batch_size,
        rank=rank,
        steps=max(SCHEDULE, WARM_UP + rounds + 1),
    )


def built(name: str, at: Setting, accelerator: Accelerator) -> tuple[OurStep, float]:
    """Return a trainer ready for its first step, and the seconds that took, looking at data among them."""
    start = time.perf_counter()
    side = OurStep(at, name, accelerator)
    return side, time.perf_counter() - start


def closing_seconds(side: OurStep) -> float:
    """Return the seconds that a method's last edits take, a search among them."""
    start = time.perf_counter()
    with torch.no_grad():
        side.trainer.strategy.finish(side.trainer.adapters)
    return time.perf_counter() - start


def step_ratio(name: str, at: Setting, rounds: int) -> dict[str, float]:
    """Return the median of a method's step over `lora`'s, both in turn on the same batches, and what comes once.

    Medians and the longest step in ms; seconds before the first step, beyond `lora`'s, and after the last.
    """
    accelerator = make_accelerator()
    built("lora", at, accelerator)[0].close()  # the first one reads files that the next find in memory
    made = {side: built(side, at, accelerator) for side in ("lora", name)}
    sides = {side: trainer for side, (trainer, _) in made.items()}
    times: dict[str, list[float]] = {side: [] for side in sides}
    try:
        for number in range(WARM_UP + rounds):
            order = list(sides) if number % 2 else list(sides)[::-1]
            for side in order:
                start = time.perf_counter()
                sides[side](number)
                if number >= WARM_UP:
                    times[side].append(1000 * (time.perf_counter() - start))
        after = closing_seconds(sides[name])
    finally:
        for side in sides.values():
            side.close()
    mine, plain = np.array(times[name]), np.array(times["lora"])
    return {
        "ratio": float(np.median(mine / plain)),
        "of_sums": float(mine.sum() / plain.sum()),
        "ms": float(np.median(mine)),
        "lora_ms": float(np.median(plain)),
        "longest_ms": float(mine.max()),
        "before_s": made[name][1] - made["lora"][1],
        "after_s": after,
    }


def memory(name: str, at: Setting, steps: int = 4) -> dict[str, float]:
    """Return what a few steps of a method take of a fresh process's memory.

    `peak_mib`, the greatest resident size; `allocated`, the adapter parameters that room is held for.
    """
    side = OurStep(at, name, make_accelerator())
    for number in range(steps):
        side(number)
    side.close()
    return {"peak_mib": resident_peak(), "allocated": side.trainer.adapters.adapter_parameter_count()["allocated"]}


def resident_peak() -> float:
    """Return the greatest resident size of this process so far, MiB.

    Linux: `VmHWM`. `ru_maxrss` would begin at the size of the process that started this one.
    """
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text("utf-8").splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def memory_of(name: str, arguments: argparse.Namespace) -> dict[str, float]:
    """Return the medians of `memory` over a few processes of its own: one peak differs from the next by some 15 MiB."""
    command = [sys.executable, "-m", "benchmarks.methods", "--memory-of", name, "--rank", str(arguments.rank)]
    peaks = []
    for _ in range(1 if arguments.quick else PROCESSES):
        done = subprocess.run([*command, "--batch-size", str(arguments.batch_size)], capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"{name}: {done.stderr[-500:]}")
        peaks.append(json.loads(done.stdout.splitlines()[-1]))
    return {key: float(np.median([one[key] for one in peaks])) for key in peaks[0]}


def costs(names: Sequence[str], arguments: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Return time and memory of every method."""
    rows = {}
    plain = memory_of("lora", arguments)
    for name in names:
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch)
            write_data(folder / "data")
            at = setting(folder, arguments.rounds, arguments.rank, arguments.batch_size)
            taken = {} if name == "lora" else step_ratio(name, at, arguments.rounds)
        held = plain if name == "lora" else memory_of(name, arguments)
        peak = held["peak_mib"] - plain["peak_mib"]
        once = {key: taken.get(key, 0.0) for key in ("before_s", "after_s", "longest_ms")}
        ratio, of_sums = taken.get("ratio", 1.0), taken.get("of_sums", 1.0)
        rows[name] = {"step_over_lora": ratio, "sum_over_lora": of_sums, **held, "peak_over_lora_mib": peak, **once}
        print(
            f"{name:14} step {ratio:.3f} of lora's, sum {of_sums:.3f}, longest {once['longest_ms']:.0f} ms, "
            f"before {once['before_s']:+.1f} s, after {once['after_s']:.1f} s, peak {peak:+.0f} MiB, "
            f"room for {held['allocated']:,.0f} parameters",
            flush=True,
        )
    return rows


def choose_rates(names: Sequence[str], cell: Job, arguments: argparse.Namespace) -> None:
    """Try every rate of the grid on the tuning rows of a task, and continue where the best one lies at the edge."""
    sides = [replace(cell, method=name) for name in dict.fromkeys(rates_source(name) for name in names)]
    wanted = {side: tables.tried(KEPT, side) | set(GRIDS[cell.rank]) for side in sides}
    while wanted:
        seeds = range(arguments.tuning_seeds)
        more = [replace(side, lr=lr, seed=seed) for side, rates in wanted.items() for lr in rates for seed in seeds]
        carry_out(more, KEPT, arguments.data, arguments.workers, None)
        beyond = {side: tables.rate_beyond(KEPT, side) for side in sides}
        wanted = {side: {lr} for side, lr in beyond.items() if lr is not None}


def first_cell(arguments: argparse.Namespace) -> Job:
    """Return a run of the task, the first one, on whose tuning rows rates are chosen."""
    task = arguments.tasks.split(",")[0]
    return Job("tune", task, "", arguments.rank, 0, 0.0, steps=arguments.steps)


def rates_of(names: Sequence[str], arguments: argparse.Namespace, kept: KeptRuns) -> dict[str, float]:
    """Return the rate that each method chose, the grid's middle one where nothing was tuned."""
    cell = first_cell(arguments)
    chosen = {name: tables.chosen_rate(kept, replace(cell, method=rates_source(name))) for name in names}
    return {name: GRIDS[arguments.rank][1] if lr is None else lr for name, lr in chosen.items()}


def train(names: Sequence[str], arguments: argparse.Namespace, kept: KeptRuns, limit: int | None) -> None:
    """Choose every method's rate on the first task and train what is reported with it."""
    cell = first_cell(arguments)
    if limit is None:
        choose_rates(names, cell, arguments)
    rates = rates_of(names, arguments, kept)
    jobs = [
        replace(cell, purpose="report", task=task, method=name, seed=REPORTING_SEEDS + seed, lr=rates[name])
        for seed in range(arguments.seeds)
        for task in arguments.tasks.split(",")
        for name in names
    ]
    carry_out(jobs, kept, arguments.data, arguments.workers, limit)


def table_cells(arguments: argparse.Namespace, kept: KeptRuns) -> list[dict[str, Any]]:
    """Return the cells of `tables.summary` that were asked for, every method in them."""
    seeds = range(REPORTING_SEEDS, REPORTING_SEEDS + arguments.seeds)
    summary = tables.summary(kept, seeds)
    wanted = {"model": "minilm", "rank": arguments.rank}
    tasks = arguments.tasks.split(",")
    return [cell for cell in summary["cells"] if wanted.items() <= cell.items() and cell["task"] in tasks]


def parsed() -> argparse.Namespace:
    """Return what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of the GLUE tasks")
    parser.add_argument("--tasks", default="sentiment4,mrpc")
    parser.add_argument("--methods", help="separated by commas; all that are registered")
    parser.add_argument("--rank", type=int, default=4, choices=sorted(GRIDS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--tuning-seeds", type=int, default=1, help="seeds that a rate is tried with")
    parser.add_argument("--steps", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=56, help="steps of each side that are timed; 0 keeps known costs")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="two methods, tiny runs: does it work, nothing more")
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)
    return parser.parse_args()


def known_costs(rank: int) -> dict[str, dict[str, float]]:
    """Return the costs that were written last, none where they are those of another rank."""
    if not (results.RESULTS / "methods.json").exists():
        return {}
    figures = json.loads((results.RESULTS / "methods.json").read_text("utf-8"))["figures"]
    return figures["costs"] if {cell["rank"] for cell in figures["cells"]} == {rank} else {}


def print_memory(arguments: argparse.Namespace) -> None:
    """Print `memory` of this process, for `memory_of`."""
    with tempfile.TemporaryDirectory() as scratch:
        write_data(Path(scratch) / "data")
        at = setting(Path(scratch), 1, arguments.rank, arguments.batch_size)
        print(json.dumps(memory(arguments.memory_of, at)))


def main() -> None:
    """Train what is missing, measure costs, print, write."""
    arguments = parsed()
    if arguments.memory_of:
        print_memory(arguments)
        return
    names = arguments.methods.split(",") if arguments.methods else sorted(strategies.registry())
    kept, limit = KEPT, None
    if arguments.quick:
        kept, limit, names = KeptRuns.below(results.emptied("methods")), 300, ["lora", "dynamic"]
        arguments.tasks, arguments.seeds, arguments.steps, arguments.rounds = "sentiment4", 1, 12, 3
        arguments.batch_size = 8
    train(names, arguments, kept, limit)
    torch.set_num_threads(2)
    known = {} if arguments.quick else known_costs(arguments.rank)
    measured = costs(names, arguments) if arguments.rounds else {}
    figures = {"cells": table_cells(arguments, kept), "costs": known | measured}
    print("\n".join(methods_table(figures)))
    print("written:", results.write("methods-quick" if arguments.quick else "methods", figures, "benchmarks.methods"))


if __name__ == "__main__":
    main()
