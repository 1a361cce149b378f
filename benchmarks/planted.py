"""Does rank go where it is needed? Methods and fixed placements on planted ranks, where the need is known.

    python -m benchmarks.planted [--conditions "k=4;k=12"] [--sides "lora;dynamic;planted ranks"] [--seeds 8]
        [--rates "0.004,0.008"] [--rates-from planted] [--processes 2] [--name planted] [--pack]

The teacher is the base model plus updates of known rank in k of its modules (task `planted`); every side has the
parameters of uniform rank 1 (but `rank 4` and `reaction`), and the error is relative to the base model's. Each side
takes the rate with the least error on the tuning seeds, of `--tuned-on`; then all train on seeds that chose nothing,
each a draw of the teacher, of the texts' order and of A. Recovered headroom is log(uniform / side) / log(uniform /
planted ranks) of the mean errors, in `reaction` from a scale to the oracle gate; its 95 % interval is a bootstrap over
seeds. Runs are kept, so that what was ended early continues.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import results
from benchmarks.fixed_run import written_ranks
from benchmarks.kept_runs import KeptRuns
from benchmarks.placements import drawn, part_of, placed
from benchmarks.tuned import chosen_rate, quiet_process
from dynlora.config import parse_config
from dynlora.config_files import set_key
from dynlora.engine.model.modules import ATTENTION, MLP, ModuleInfo, find_modules
from dynlora.errors import TrainingDiverged
from dynlora.inference.compress import Compression
from dynlora.store.reader import RunReader
from dynlora.store.summary import failed_with, run_summary
from dynlora.strategies import registry
from dynlora.tasks.planted import RELATIVE_ERROR
from dynlora.training import run as training_run
from dynlora.training.inputs import load_inputs

TUNING_SEED, FIRST_SEED = 1000, 1
UNIFORM, KNOWN, WIDE = "lora", "planted ranks", "wide, one cut"
BLIND, ORACLE = "gates=scale", "oracle gate"
"""Of condition `reaction`: gates that do not see the input, and the adapters of the group alone, used on it alone."""
ACTING, ACTING_SHARE = "movies", 0.45
"""The group that updates act on in condition `reaction`, and the fraction of the texts that are in it."""
WIDER = 8
"""Rank of the control over the uniform rank; `dynamic` starts as wide."""

SIDES: dict[str, dict[str, Any]] = {
    **dict.fromkeys((UNIFORM, KNOWN, WIDE, "MLP alone", "attention alone", "random ranks"), {"name": "lora"}),
    "dynamic": {"name": "dynamic", "gates": "off", "explore": 8.0},
    "dynamic, random cuts": {"name": "dynamic", "gates": "off", "explore": 8.0, "allocation": "random"},
    "dynamic, within the budget": {"name": "dynamic", "gates": "off", "explore": 1.0, "growth_limit": 16.0},
    **{name: {"name": name} for name in registry() if name not in ("lora", "dynamic")},
}
REACTING: dict[str, dict[str, Any]] = {
    "no gate": {"gates": "off"},
    ORACLE: {"gates": "off"},
    BLIND: {"gates": "scale"},
    f"{BLIND}, rate x 10": {"gates": "scale", "scale_lr_ratio": 10.0},
    "gates=module": {"gates": "module", "scale_lr_ratio": 1.0},
    "gates=module, rate x 10": {"gates": "module", "scale_lr_ratio": 10.0},
    "gates=token, rate x 10": {"gates": "token", "scale_lr_ratio": 10.0},
}
SIDES |= {side: {"name": "dynamic", "allocation": "none", **gates} for side, gates in REACTING.items()}
"""Settings of each side's strategy. A placement's ranks, and the cut of the control, are made in `trained`."""

CONDITIONS: dict[str, dict[str, Any]] = {
    "k=4": {},
    "k=12": {"data.planted_modules": "12", "data.planted_rank": 3},
    "k=36": {"data.planted_modules": "36", "data.planted_rank": 1},
    "weak": {"data.planted_strength": 0.03},
    "rank 4": {"adapter.rank": 4, "data.planted_rank": 32},
    "600 steps": {"train.steps": 600},
    "2000 steps": {"train.steps": 2000},
    "half": {"model.layers": "0-2", "data.planted_modules": "2"},
    "smollm2-135m": {"model.name": "smollm2-135m", "data.planted_modules": "12"},
    "reaction": {"adapter.rank": 8, "data.planted_group": ACTING},
}
"""What differs from k = 4 modules of rank 8 at strength 0.3, 200 steps of 16 texts, uniform rank 1, `minilm`."""

KEPT = KeptRuns.of("planted")

Job = tuple[str, str, int, float]
"""Condition, side, seed and learning rate of a run."""


def values_of(job: Job) -> dict[str, Any]:
    """Return the values of a run's config, without a placement's ranks."""
    condition, side, seed, lr = job
    values: dict[str, Any] = {
        "seed": seed,
        "data": {"name": "planted", "planted_seed": seed, "max_length": 32, "max_eval": 256},
        "adapter": {"rank": 1, "dropout": 0.0},
        "train": {"steps": 200, "batch_size": 16, "lr": lr, "weight_decay": 0.0},
        "strategy": dict(SIDES[side]),
    }
    for key, value in CONDITIONS[condition].items():
        set_key(values, key, value)
    if side == ORACLE:
        values["data"]["train_groups"] = [ACTING]
        values["train"]["steps"] = round(ACTING_SHARE * values["train"]["steps"])
    rank, steps = values["adapter"]["rank"], values["train"]["steps"]
    values["adapter"] |= {"rank": rank * (WIDER if side == WIDE else 1), "alpha": 2 * rank}
    if side == WIDE:
        values["adapter"]["alpha"] *= WIDER
    values["log"] = {"every": 50, "eval_every": steps, "checkpoint_every": steps, "eval_rows": 256}
    return values


def task_of(values: Mapping[str, Any]) -> tuple[dict[str, Any], list[ModuleInfo]]:
    """Return what is planted, and the modules that are adapted."""
    inputs = load_inputs(parse_config({**values, "strategy": {"name": "lora"}}))
    return inputs.data.task.facts()["planted"], find_modules(inputs.base.model, None, inputs.base.head)


def placement(
    side: str, truth: Mapping[str, Any], infos: Sequence[ModuleInfo], rank: int, seed: int
) -> Mapping[str, int] | None:
    """Return the ranks of a fixed placement by module, None where the side is none."""
    if side == KNOWN:
        return {name: int(truth["rank"]) for name in truth["sizes"]}
    if side == "random ranks":
        return drawn(infos, rank, seed).ranks
    part = {"MLP alone": MLP, "attention alone": ATTENTION}.get(side)
    return None if part is None else placed(infos, rank, lambda info: part_of(info) == part).ranks


def trained(kept: KeptRuns, quick: bool, job: Job) -> str:
    """Train a run, keep what it came to and return a line about it; processes of a pool call this."""
    condition, side, seed, lr = job
    values = values_of(job)
    if quick:
        values["train"]["steps"] = values["log"]["eval_every"] = values["log"]["checkpoint_every"] = 8
    rank = values["adapter"]["rank"] // (WIDER if side == WIDE else 1)
    truth, infos = task_of(values)
    ranks = placement(side, truth, infos, rank, seed)
    with tempfile.TemporaryDirectory() as place:
        if ranks is not None:
            values["strategy"]["ranks_from"] = written_ranks(ranks, Path(place) / "ranks.json")
        outcome = training_run.train(parse_config(values), Path(place) / "runs")
        diverged = failed_with(outcome.folder) == TrainingDiverged.__name__
        if outcome.state != "finished" and not diverged:
            raise SystemExit(f"{file_name(job)}: {outcome.error or outcome.state}; start the command again")
        made = {} if diverged else outcome_of(outcome.folder, side, rank, truth, infos)
    about = {"condition": condition, "side": side, "seed": seed, "lr": lr}
    made_with = {**results.versions(), "processor": results.processor(), "threads": torch.get_num_threads()}
    run = {"job": about, "steps": values["train"]["steps"], "made_with": made_with, "diverged": diverged, **made}
    kept.keep(file_name(job), run)
    return f"{condition}, {side}, seed {seed}, rate {lr:g}: {made.get('metrics', outcome.error)}"


def outcome_of(
    folder: Path, side: str, rank: int, truth: Mapping[str, Any], infos: Sequence[ModuleInfo]
) -> dict[str, Any]:
    """Return error, ranks and parameters of a finished run; the control is cut to the budget first."""
    names, costs = [info.name for info in infos], np.array([info.cost for info in infos])
    summary, budget = run_summary(folder), rank * int(costs.sum())
    error: Any = summary.metrics[RELATIVE_ERROR]
    ranks = [summary.ranks.get(name, 0) for name in names]
    with RunReader(folder) as reader:
        peak = max(int(held @ costs) for held in reader.signal("rank")[1])
        if side == ORACLE:  # of the group that the updates act on; its gate is 0 for the others, whose error is 0
            error = float(reader.signal("group_metric")[1][-1][reader.groups().index(ACTING)])
    if side == WIDE:
        curve = Compression.of_run(folder, rows=256, weighting="loss").curve
        size = curve.measured("global", budget / curve.adapter.parameters)
        error, ranks = size.on(np.arange(len(curve.rows.tokens))).metrics[RELATIVE_ERROR], list(size.ranks)
    needs = [truth["rank"] if name in truth["sizes"] else 0 for name in names]
    within = sum(held for held, need in zip(ranks, needs, strict=True) if need)
    useful = sum(min(held, need) for held, need in zip(ranks, needs, strict=True))
    return {
        "metrics": {
            "error": round(error, 5),
            "within": within,
            "components": sum(ranks),
            "precision": round(within / max(1, sum(ranks)), 4),
            "recall": round(useful / max(1, sum(needs)), 4),
        },
        "parameters": {"end": int(np.dot(ranks, costs)), "peak": peak, "budget": budget},
        "ranks": ranks,
        "train_s": summary.time["train_s"],
    }


def file_name(job: Job) -> str:
    """Return the name under which a run is kept."""
    condition, side, seed, lr = job
    return f"{condition}-{side}-{lr:g}-{seed}.json".replace(" ", "_")


def train_all(arguments: argparse.Namespace, jobs: Sequence[Job]) -> None:
    """Train what is not kept yet, in as many processes as asked for."""
    missing = [job for job in dict.fromkeys(jobs) if file_name(job) not in arguments.kept]
    start = partial(quiet_process, max(1, (os.cpu_count() or 1) // arguments.processes))
    with ProcessPoolExecutor(arguments.processes, get_context("spawn"), initializer=start) as pool:
        waiting = [pool.submit(trained, arguments.kept, arguments.quick, job) for job in missing]
        for done in as_completed(waiting):
            print(done.result(), flush=True)


TUNED_AS: dict[str, str] = {
    "MLP alone": UNIFORM,
    "attention alone": UNIFORM,
    "random ranks": UNIFORM,
    "dynamic, random cuts": "dynamic",
}
"""Placements and controls, and the side whose rate they take."""


def rates_of(arguments: argparse.Namespace) -> dict[str, dict[str, float | None]]:
    """Return each side's mean error at each rate over the tuning seeds, by side; None where one diverged."""
    sides = list(dict.fromkeys(TUNED_AS.get(side, str(side)) for side in arguments.sides))
    where, seeds = arguments.tuned_on, arguments.tuning_seeds
    train_all(arguments, [(where, side, seed, lr) for seed in seeds for side in sides for lr in arguments.rates])
    curves: dict[str, dict[str, float | None]] = {}
    for side in sides:
        curves[side] = {}
        for lr in arguments.rates:
            runs = [arguments.kept[file_name((where, side, seed, lr))] for seed in seeds]
            errors = [run["metrics"]["error"] for run in runs if not run["diverged"]]
            curves[side][f"{lr:g}"] = float(np.mean(errors)) if len(errors) == len(runs) else None
    return curves


def recovered(errors: np.ndarray, uniform: np.ndarray, known: np.ndarray) -> list[float]:
    """Return log(uniform / side) / log(uniform / known) of the mean errors by seed, with its interval over seeds."""

    def headroom(of: np.ndarray) -> np.ndarray:
        mine, plain, best = (np.log(table[of].mean(-1)) for table in (errors, uniform, known))
        return (plain - mine) / (plain - best)

    draws = np.random.default_rng(0).integers(len(errors), size=(10_000, len(errors)))
    middle = headroom(np.arange(len(errors)))
    return [round(float(value), 3) for value in (middle, *np.quantile(headroom(draws), (0.025, 0.975)))]


def rows_of(arguments: argparse.Namespace, condition: str, rates: Mapping[str, float]) -> dict[str, Any]:
    """Return a row for each side of a condition, over the seeds that every side has."""
    runs = {
        side: [arguments.kept[file_name((condition, side, seed, rates[side]))] for seed in arguments.seeds]
        for side in arguments.sides
    }
    plain, best = (BLIND, ORACLE) if condition == "reaction" else (UNIFORM, KNOWN)
    whole = {side: of for side, of in runs.items() if not any(run["diverged"] for run in of)}
    errors = {side: np.array([run["metrics"]["error"] for run in of]) for side, of in whole.items()}
    rows: dict[str, Any] = {side: {"diverged": True} for side in runs if side not in whole}
    for side, of in whole.items():
        mean = {name: np.mean([run["metrics"][name] for run in of]) for name in of[0]["metrics"]}
        rows[side] = {
            **{name: round(value, 4) for name, value in mean.items()},
            "errors": errors[side].tolist(),
            "end": round(np.mean([run["parameters"]["end"] / run["parameters"]["budget"] for run in of]), 3),
            "peak": round(np.mean([run["parameters"]["peak"] / run["parameters"]["budget"] for run in of]), 3),
        }
        if condition != "k=36" and {plain, best} <= whole.keys() and len(arguments.seeds) > 1:
            rows[side]["recovered"] = recovered(errors[side], errors[plain], errors[best])
        for other in (plain, WIDE, "MLP alone"):
            if other != side and other in errors and len(arguments.seeds) > 1:
                rows[side][f"error - {other}"] = results.mean_and_ends((errors[side] - errors[other])[:, None])
    return rows


def arguments_of(given: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line, or what is given in its place."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--conditions", default="k=4", help=f"separated by ;: {'; '.join(CONDITIONS)}")
    parser.add_argument("--sides", default=";".join(SIDES), help="separated by ;")
    parser.add_argument("--rates", default="0.004,0.008", help="that are tried, separated by commas")
    parser.add_argument("--rates-from", default="", help="file of results whose chosen rates are kept")
    parser.add_argument("--tuned-on", default="k=4", help="condition in which rates are chosen")
    parser.add_argument("--tuning-seeds", type=int, default=2, help="draws on which each side's rate is chosen")
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--processes", type=int, default=1, help="runs side by side; cores are shared among them")
    parser.add_argument("--name", default="planted", help="of the file of results")
    parser.add_argument("--pack", action="store_true", help="move finished runs into the committed file, and end")
    parser.add_argument("--quick", action="store_true", help="few steps and sides: does it work, nothing more")
    arguments, _ = parser.parse_known_args(given)
    if arguments.quick:
        arguments.sides, arguments.conditions, arguments.seeds = f"{UNIFORM};{KNOWN};{WIDE};dynamic", "half", 1
        arguments.rates_from, arguments.name = "", "planted-quick"
    arguments.kept = KeptRuns.below(results.emptied("planted")) if arguments.quick else KEPT
    arguments.sides, arguments.conditions = arguments.sides.split(";"), arguments.conditions.split(";")
    arguments.rates = [float(rate) for rate in arguments.rates.split(",")]
    arguments.seeds = list(range(FIRST_SEED, FIRST_SEED + arguments.seeds))
    arguments.tuning_seeds = list(range(TUNING_SEED, TUNING_SEED + arguments.tuning_seeds))
    return arguments


def main() -> None:
    """Tune, compare, print, write."""
    arguments = arguments_of()
    if arguments.pack:
        arguments.kept.pack()
        return
    curves: dict[str, dict[str, float | None]] = {}
    if arguments.rates_from:
        kept = results.RESULTS / f"{arguments.rates_from}.json"
        curves = json.loads(kept.read_text("utf-8"))["figures"]["rates"]
    tuned = {side: TUNED_AS.get(side, str(side)) for side in arguments.sides}
    if not arguments.quick and not set(tuned.values()) <= curves.keys():
        curves |= rates_of(arguments)
    rates = {side: arguments.rates[0] if arguments.quick else chosen_rate(curves[of]) for side, of in tuned.items()}
    figures: dict[str, Any] = {"seeds": arguments.seeds, "rates": curves, "chosen": rates, "conditions": {}}
    for condition in arguments.conditions:
        train_all(arguments, [(condition, side, seed, rates[side]) for seed in arguments.seeds for side in rates])
        figures["conditions"][condition] = rows = rows_of(arguments, condition, rates)
        print(f"\n{condition}: error, components in the modules that need them, recovered headroom")
        for side, row in sorted(rows.items(), key=lambda item: item[1].get("error", np.inf)):
            print(
                f"  {side:28} {row.get('error')}  {row.get('within')} of {row.get('components')}"
                f"  {row.get('recovered')}"
            )
        print("written:", results.write(arguments.name, figures, "benchmarks.planted"))


if __name__ == "__main__":
    main()
