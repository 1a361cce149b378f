"""Does a method beat `lora` when each has its own learning rate? Rates first, then seeds that chose nothing.

    python -m benchmarks.tuned --data CLINC150 [--model minilm] [--rank 1] [--steps 300] [--seeds 8]
        [--methods "lora;dynamic;dynamic, wide"] [--rates 0.004,0.006,0.01,0.015,0.02,0.03] [--tuning-seeds 1]
        [--processes 2] [--name tuned-clinc150-r1-scale] [--test]

Each method takes the rate with the least loss on the tuning seeds (1000, 1001, ...), which are used for nothing else.
A part of a method that `benchmarks.allocators` gives no rate of its own takes that of the whole. Then all train on the
seeds 1, 2, ... with the batches, the dropout and, by module, the draws of A in common. Intervals are Student's over
seeds and rows. Finished runs are kept in `results/tuned.parquet` (`--pack` packs those that have just ended), so that
what was ended early continues, and tables are made again from them.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers.utils import logging as transformers_logging

from benchmarks import results
from benchmarks.allocators import FROZEN_SCALES, HEAD_RATE, RANDOM_RANKS, RATE, SCALING, parts_of, tuned_as
from benchmarks.fixed_run import measured, written_ranks
from benchmarks.headroom import SCALING_OF_ALL, mean_and_ends, modules_of, task_of, values_of
from benchmarks.kept_runs import KeptRuns
from benchmarks.placements import drawn
from dynlora.analysis.stats import t_reach
from dynlora.engine.randomness import stream_seed

TUNING_SEED, FIRST_SEED = 1000, 1
RATES = "0.004,0.006,0.01,0.015,0.02,0.03"
METHODS = "lora;dynamic;dynamic, wide;dynamic, random, first only"
COMPARED_WITH = (
    "lora",
    "lora, scaling 0.5",
    "lora, scaling 0.25",
    "lora, fast head",
    "lora, head at 0.01",
    "lora, head at 0.04",
    "lora, scale",
    "lora, scale, head at 0.01",
    "lora, scale, head at 0.04",
    "dynamic",
    "dynamic, scale",
    "dynamic, scale, head at 0.01",
    "random ranks",
    "dynamic, random, first only",
    "dynamic, wide, random, fast head",
)
KEPT = KeptRuns.of("tuned")

Job = tuple[str, int, float]
"""Method, seed and learning rate of a run."""


def file_name(arguments: argparse.Namespace, job: Job) -> str:
    """Return the name under which a run is kept."""
    method, seed, lr = job
    where = f"{Path(arguments.data).name}-{arguments.model}-r{arguments.rank}-{arguments.steps}-{arguments.rows}"
    return f"{where}-{method}-{lr:g}-{seed}.json".replace(" ", "_")


def with_test_held_out(data: Path) -> str:
    """Return a folder of the same training examples, whose held-out examples are those of the test split."""
    folder = results.QUICK / "test" / f"{data.name}-test"
    folder.mkdir(parents=True, exist_ok=True)
    for split, of in (("train", "train"), ("validation", "test")):
        shutil.copyfile(data / f"{of}.parquet", folder / f"{split}.parquet")
    return str(folder)


def trained(arguments: argparse.Namespace, job: Job) -> str:
    """Train a run, keep it and return a line about it; processes of a pool call this."""
    method, seed, lr = job
    values = argparse.Namespace(**{**vars(arguments), "lr": lr})
    strategy, own = parts_of(method)
    scales = frozen_scales(arguments, own[FROZEN_SCALES], seed, lr) if FROZEN_SCALES in own else None
    with tempfile.TemporaryDirectory() as folder:
        if RANDOM_RANKS in own:
            ranks = drawn(modules_of(arguments.model, task_of(values)), arguments.rank, seed).ranks
            strategy["ranks_from"] = written_ranks(ranks, Path(folder) / "ranks.json")
        config = values_of(values, seed, strategy)
        config["adapter"]["alpha"] = own.get(SCALING, SCALING_OF_ALL) * arguments.rank
        config["train"]["head_lr"] = own.get(HEAD_RATE)
        run = measured(config, scales=scales)
    about = {"method": method, "seed": seed, "lr": lr, "data": Path(arguments.data).name, "rank": arguments.rank}
    made: dict[str, Any] = {
        "job": about,
        "steps": arguments.steps,
        "made_with": {**results.versions(), "processor": results.processor(), "threads": torch.get_num_threads()},
        "diverged": "loss" not in run,
    }
    if "loss" in run:
        made |= {
            "parameters": {"used": run["parameters"], "budget": run["budget"]},
            "train_s": run["seconds"],
            "ranks": run["ranks"],
            "metrics": {name: run[name] for name in ("reaction", "scales", "update_norms") if run[name]},
            "loss": [round(1000 * loss) for loss in run["loss"]],
            "right": "".join(map(str, run["right"])),
        }
    arguments.kept.keep(file_name(arguments, job), made)
    outcome = f"loss {np.mean(run['loss']):.4f}, right {np.mean(run['right']):.4f}" if "loss" in run else "diverged"
    return f"{method}, seed {seed}, rate {lr:g}: {outcome}, {run.get('seconds')} s"


def frozen_scales(arguments: argparse.Namespace, form: str, seed: int, lr: float) -> list[float]:
    """Return the scales by module that `lora, scale` learned with this seed: as they are, their mean, or shuffled.

    Raises:
        KeyError: while that run is not kept.
    """
    learned = arguments.kept[file_name(arguments, ("lora, scale", seed, lr))]["metrics"]["scales"]
    if form == "mean":
        return [float(np.mean(learned))] * len(learned)
    if form == "shuffled":
        return np.random.default_rng(stream_seed(seed, "shuffled scales", len(learned))).permutation(learned).tolist()
    return learned


def quiet_process(threads: int) -> None:
    """Leave out warnings and bars, and compute with so many threads."""
    logging.disable(logging.WARNING)
    transformers_logging.disable_progress_bar()
    torch.set_num_threads(threads)


def train_all(arguments: argparse.Namespace, jobs: Iterable[Job]) -> None:
    """Train what is not kept yet, in as many processes as asked for."""
    missing = [job for job in dict.fromkeys(jobs) if file_name(arguments, job) not in arguments.kept]
    threads = max(1, (os.cpu_count() or 1) // arguments.processes)
    if arguments.processes == 1 or len(missing) < 2:
        quiet_process(threads)
        for job in missing:
            print(trained(arguments, job), flush=True)
        return
    spawn = get_context("spawn")
    with ProcessPoolExecutor(arguments.processes, spawn, initializer=partial(quiet_process, threads)) as pool:
        for done in as_completed([pool.submit(trained, arguments, job) for job in missing]):
            print(done.result(), flush=True)


def kept_run(arguments: argparse.Namespace, method: str, seed: int, lr: float) -> dict[str, Any]:
    """Return what a finished run came to: losses in nats and whether each row is right, or that it diverged."""
    made = arguments.kept[file_name(arguments, (method, seed, lr))]
    if made["diverged"]:
        return {"diverged": True}
    return {
        "loss": [loss / 1000 for loss in made["loss"]],
        "right": [int(one) for one in made["right"]],
        "parameters": made["parameters"]["used"],
        "reaction": (made.get("metrics", {}).get("reaction") or {}).get("lowers_by"),
        "scales": made.get("metrics", {}).get("scales"),
        "update_norms": made.get("metrics", {}).get("update_norms"),
    }


def curve_of(arguments: argparse.Namespace, method: str) -> dict[str, float | None]:
    """Return a method's mean loss at each rate over the tuning seeds; None where a run diverged or nothing is tuned."""
    if len(arguments.rates) == 1:
        return {f"{arguments.rates[0]:g}": None}
    curve: dict[str, float | None] = {}
    for lr in arguments.rates:
        runs = [kept_run(arguments, method, TUNING_SEED + seed, lr) for seed in range(arguments.tuning_seeds)]
        diverged = any("loss" not in run for run in runs)
        curve[f"{lr:g}"] = None if diverged else round(float(np.mean([run["loss"] for run in runs])), 5)
    return curve


def known_curves(names: str) -> dict[str, dict[str, float | None]]:
    """Return the curves of files of results, by method; a later file wins, and no names give none."""
    curves: dict[str, dict[str, float | None]] = {}
    for name in filter(None, names.split(",")):
        curves |= json.loads((results.RESULTS / f"{name}.json").read_text("utf-8"))["figures"]["rates"]
    return curves


def chosen_rate(curve: Mapping[str, float | None]) -> float:
    """Return the rate with the least loss, or the only one."""
    if len(curve) == 1:
        return float(next(iter(curve)))
    return float(min((loss, lr) for lr, loss in curve.items() if loss is not None)[1])


def rate_of(chosen: dict[str, float], method: str) -> float:
    """Return the rate at which a method trains: its own, or that which was chosen for what it is tuned as."""
    return parts_of(method)[1].get(RATE) or chosen[tuned_as(method)]


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


def reaction_of(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Return what reacting to the input gains, with Student's interval over seeds; nothing without gates."""
    gains = [run["reaction"] for run in runs]
    if len(gains) < 2 or any(gain is None for gain in gains):
        return {}
    mean, half = float(np.mean(gains)), t_reach(gains)
    return {"reaction": [round(value, 5) for value in (mean, mean - half, mean + half)]}


def compared(arguments: argparse.Namespace, chosen: dict[str, float], seeds: list[int]) -> dict[str, Any]:
    """Train every method at its rate on the seeds, and return a row each; a method that diverged says so."""
    runs = {
        method: [kept_run(arguments, method, seed, rate_of(chosen, method)) for seed in seeds]
        for method in arguments.methods
    }
    whole = {method: of for method, of in runs.items() if all("loss" in run for run in of)}
    tables = {
        what: {method: np.array([run[what] for run in of], float) for method, of in whole.items()}
        for what in ("loss", "right")
    }
    return {
        method: {"parameters": of[0]["parameters"], **row_of(tables, method), **reaction_of(of)}
        if method in whole
        else {"diverged": sum("loss" not in run for run in of)}
        for method, of in runs.items()
    }


def arguments_of(given: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line, or what is given in its place."""
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
    parser.add_argument("--rates-from", default="", help="files of results whose methods keep the rates chosen there")
    parser.add_argument(
        "--test", action="store_true", help="hold out the test split of a folder, and leave out its validation"
    )
    parser.add_argument("--processes", type=int, default=1, help="runs side by side; cores are shared among them")
    parser.add_argument("--pack", action="store_true", help="move finished runs into the committed file, and end")
    parser.add_argument("--quick", action="store_true", help="few steps and rows: does it work, nothing more")
    arguments, _ = parser.parse_known_args(given)
    if arguments.quick:
        arguments.steps, arguments.rows, arguments.seeds, arguments.rates = 12, 64, 2, "0.004,0.01"
        arguments.methods = "lora;dynamic"
    if arguments.test:
        arguments.data = with_test_held_out(Path(arguments.data))
    arguments.kept = KeptRuns.below(results.emptied("tuned")) if arguments.quick else KEPT
    arguments.rates = [float(rate) for rate in arguments.rates.split(",")]
    arguments.methods = arguments.methods.split(";")
    return arguments


def main() -> None:
    """Tune, compare, print, write."""
    arguments = arguments_of()
    if arguments.pack:
        arguments.kept.pack()
        return
    known = known_curves(arguments.rates_from)
    tuned = [tuned_as(method) for method in arguments.methods if RATE not in parts_of(method)[1]]
    own = [method for method in dict.fromkeys(tuned) if method not in known]
    tuning = range(TUNING_SEED, TUNING_SEED + arguments.tuning_seeds) if len(arguments.rates) > 1 else range(0)
    train_all(arguments, [(method, seed, lr) for seed in tuning for method in own for lr in arguments.rates])
    curves = known | {method: curve_of(arguments, method) for method in own}
    chosen = {method: chosen_rate(curve) for method, curve in curves.items()}
    name = arguments.name or f"tuned-{Path(arguments.data).name}-r{arguments.rank}"
    name = "tuned-quick" if arguments.quick else name
    seeds = list(range(FIRST_SEED, FIRST_SEED + arguments.seeds))
    train_all(arguments, [(m, seed, rate_of(chosen, m)) for seed in seeds for m in arguments.methods])
    rows = compared(arguments, chosen, seeds) if seeds else {}
    figures = {"seeds": seeds, "steps": arguments.steps, "rates": curves, "chosen": chosen, "methods": rows}
    print("written:", results.write(name, figures, "benchmarks.tuned"))
    for method, row in rows.items():
        print(f"{method:30} {json.dumps(row)}")


if __name__ == "__main__":
    main()
