"""Methods x tasks x seeds at equal budget: which one predicts held-out rows better, row by row.

python -m benchmarks.quality --data GLUE tune      every method chooses its learning rate on rows of train
python -m benchmarks.quality --data GLUE report    train with the chosen rates, evaluate on the reported rows
python -m benchmarks.quality table                 print what the finished runs say, write quality.json

GLUE is a folder with the folders sst2 and mrpc (train.parquet, and test.parquet or validation.parquet); `sentiment4`
needs none. Every run is a row of results/quality.parquet and is not trained again. Two runs go side by side, a thread
each.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks import results
from benchmarks.kept_runs import KeptRuns
from benchmarks.quality import tables
from benchmarks.quality.markdown import quality_table
from benchmarks.quality.methods import CORE, GRIDS, METHODS, REPORTING_SEEDS, rates_source
from benchmarks.quality.runs import Job
from benchmarks.quality.side_by_side import carry_out
from benchmarks.quality.tasks import TASKS

KEPT = KeptRuns.of("quality")
QUICK = {"tasks": "sentiment4", "ranks": "4", "methods": "lora,peft-lora,dynamic,random", "seeds": 1}
QUICK_STEPS, QUICK_ROWS = 24, 400


def jobs(arguments: argparse.Namespace, kept: KeptRuns) -> Iterator[Job]:
    """Yield the runs that are asked for, the cheapest questions first."""
    for seed in range(arguments.seeds):
        for rank in (int(text) for text in arguments.ranks.split(",")):
            for task in arguments.tasks.split(","):
                yield from _jobs_of(
                    arguments, Job("tune", task, "", rank, seed, 0.0, arguments.model, arguments.steps), kept
                )


def _jobs_of(arguments: argparse.Namespace, cell: Job, kept: KeptRuns) -> Iterator[Job]:
    """Yield the runs of one cell: one for each method and rate of the grid, or one with the rate a method chose.

    Raises:
        SystemExit: when a method has chosen no rate yet.
    """
    methods = arguments.methods.split(",") if arguments.methods else CORE
    if arguments.stage == "tune":
        for method, lr in itertools.product(dict.fromkeys(rates_source(name) for name in methods), GRIDS[cell.rank]):
            yield replace(cell, method=method, lr=lr)
        return
    for method in methods:
        lr = tables.chosen_rate(kept, replace(cell, method=rates_source(method)))
        if lr is None and not arguments.quick:
            sys.exit(
                f"{method} has chosen no rate on {cell.task} at rank {cell.rank}: run `tune` with the same words first"
            )
        report = replace(cell, purpose="report", method=method, seed=arguments.from_seed + cell.seed)
        yield replace(report, lr=GRIDS[cell.rank][1] if lr is None else lr)


def _beyond(arguments: argparse.Namespace, kept: KeptRuns) -> Iterator[Job]:
    """Yield a run with the next rate for each cell whose best rate lies at the edge of what was tried."""
    for job in dict.fromkeys(replace(job, lr=0.0) for job in jobs(arguments, kept)):
        lr = tables.rate_beyond(kept, job)
        if lr is not None:
            yield replace(job, lr=lr)


def asked_for(figures: Mapping[str, Any], arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the cells of the tasks, ranks and model, and of the methods if some are named."""
    tasks, ranks = arguments.tasks.split(","), [int(text) for text in arguments.ranks.split(",")]
    cells = [
        cell
        for cell in figures["cells"]
        if cell["task"] in tasks and cell["rank"] in ranks and cell["model"] == arguments.model
    ]
    if arguments.methods:
        cells = [tables.among(cell, arguments.methods.split(",")) for cell in cells]
    return {**figures, "cells": [cell for cell in cells if cell["methods"]]}


def main() -> None:
    """Train, and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stage", nargs="?", choices=("tune", "report", "table"), default="table")
    parser.add_argument("--data", type=Path, help="folder of the GLUE tasks")
    parser.add_argument("--model", default="minilm")
    parser.add_argument("--tasks", default="sst2,sentiment4,mrpc", help=f"of {', '.join(TASKS)}")
    parser.add_argument(
        "--methods", help=f"of {', '.join(METHODS)}; the core comparison's, to print a table all that ran"
    )
    parser.add_argument("--ranks", default="1,4", help="ranks of the uniform LoRA that sets the budget")
    parser.add_argument("--seeds", type=int, help="how many: 5, to tune 1; those to tune are others")
    parser.add_argument("--from-seed", type=int, default=REPORTING_SEEDS, help="first seed that is reported")
    parser.add_argument(
        "--to-seed", type=int, default=sys.maxsize, help="last seed that counts in a table; only prints"
    )
    parser.add_argument("--steps", type=int, default=0, help="optimizer steps, instead of the task's own")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="tiny runs in a folder of their own: does it work")
    arguments = parser.parse_args()
    arguments.seeds = arguments.seeds or (1 if arguments.stage == "tune" else 5)
    kept, limit = KEPT, None
    if arguments.quick:
        kept, limit = KeptRuns.below(results.emptied("quality")), QUICK_ROWS
        arguments.stage, arguments.steps = "report", QUICK_STEPS
        for name, value in QUICK.items():
            setattr(arguments, name, value)
    if arguments.stage != "table":
        carry_out(list(jobs(arguments, kept)), kept, arguments.data, arguments.workers, limit)
    while arguments.stage == "tune" and (further := list(_beyond(arguments, kept))):
        carry_out(further, kept, arguments.data, arguments.workers, limit)
    if arguments.stage != "tune":
        figures = tables.summary(kept, range(arguments.from_seed, arguments.to_seed + 1))
        for cell in asked_for(figures, arguments)["cells"]:
            print(f"\n{cell['task']} on {cell['model']}, budget of rank {cell['rank']}, {cell['steps']} steps\n")
            print("\n".join(quality_table(cell, ("lora", "peft-lora", "random"))))
        since = "" if arguments.from_seed == REPORTING_SEEDS else f"-from-{arguments.from_seed}"
        name = "quality-quick" if arguments.quick else f"quality{since}"
        if arguments.to_seed == sys.maxsize:
            print("written:", results.write(name, figures, "benchmarks.quality"))


if __name__ == "__main__":
    main()
