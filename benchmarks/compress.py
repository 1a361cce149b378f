"""Shrinking a trained adapter: what each size costs, by which weighting, and whether training large and shrinking pays.

    python -m benchmarks.compress [--data sentiment4,../shared/data/glue/sst2] [--seeds 3] [--steps 300]

On each data set and seed three runs are trained: `lora` at rank 8, `lora` at rank 16, `dynamic` at rank 8. The first is
taken apart with each weighting and cut to 50, 25 and 10 % by one threshold over all modules, by uniform truncation, by
PEFT's energy rule and at random. The second is cut to the parameters of the first. All are measured on the same
held-out examples; differences are paired, intervals draw seeds and examples again. Results are written after each data
set and seed, and what is measured is kept below `benchmarks/out/`: the same command continues where it was stopped.
"""

from __future__ import annotations

import argparse
import json
import logging
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from transformers.utils import logging as transformers_logging

from benchmarks import results
from benchmarks.kept_runs import KeptRuns
from dynlora.config import parse_config
from dynlora.engine.compress.components import METHODS
from dynlora.inference.compress import Compression
from dynlora.store.measurements import WEIGHTINGS
from dynlora.training import run as training_run

SHARES = (0.5, 0.25, 0.1)
RANK = 8


@dataclass(frozen=True)
class Setting:
    """How much is trained and measured.

    Attributes:
        steps: optimizer steps of each run.
        rows: held-out examples, at most.
    """

    steps: int
    rows: int


def values_of(data: str, strategy: str, rank: int, seed: int, setting: Setting) -> dict[str, Any]:
    """Return the values of one run; the scaling is 2 at every rank."""
    where = {"path": data} if Path(data).exists() else {"name": data}
    return {
        "seed": seed,
        "data": {**where, "max_eval": setting.rows},
        "adapter": {"rank": rank, "alpha": 2 * rank},
        "strategy": {"name": strategy},
        "train": {"steps": setting.steps},
        "log": {"eval_every": setting.steps, "checkpoint_every": setting.steps},
    }


def trained(folder: Path, *of: Any) -> Path:
    """Train one run and return its folder."""
    outcome = training_run.train(parse_config(values_of(*of)), folder, progress=False)
    if outcome.state != "finished":
        raise SystemExit(f"{outcome.folder.name}: {outcome.error}")
    return outcome.folder


def sizes_of(folder: Path, rows: int) -> dict[str, Any]:
    """Return the losses of every held-out example at each size, by weighting and method."""
    sizes: dict[str, Any] = {}
    for weighting in WEIGHTINGS:
        subject = Compression.of_run(folder, rows=rows, weighting=weighting)
        sizes["full"] = {"parameters": subject.curve.adapter.parameters, "loss": subject.curve.whole.loss.tolist()}
        for method in METHODS:
            if method == "random" and weighting != WEIGHTINGS[0]:
                continue
            for share in SHARES:
                size = subject.curve.measured(method, share)
                key = f"{weighting}, {method}, {share:.0%}"
                sizes[key] = {"parameters": size.parameters, "loss": size.predictions.loss.tolist()}
    return sizes


def cut_to(folder: Path, rows: int, parameters: int, weighting: str) -> dict[str, Any]:
    """Return the losses of an adapter that is cut to a number of parameters by the global threshold."""
    subject = Compression.of_run(folder, rows=rows, weighting=weighting)
    size = subject.curve.measured("global", min(1.0, parameters / subject.curve.adapter.parameters))
    return {"parameters": size.parameters, "loss": size.predictions.loss.tolist()}


def whole(folder: Path, rows: int) -> dict[str, Any]:
    """Return the losses of a run's adapter as it is exported, its gates at their means."""
    subject = Compression.of_run(folder, rows=rows, weighting="plain")
    return {"parameters": subject.curve.adapter.parameters, "loss": subject.curve.whole.loss.tolist()}


def one(data: str, seed: int, setting: Setting, folder: Path) -> dict[str, Any]:
    """Train and measure the runs of one data set and seed."""
    losses = sizes_of(trained(folder, data, "lora", RANK, seed, setting), setting.rows)
    wide = trained(folder, data, "lora", 2 * RANK, seed, setting)
    for weighting in WEIGHTINGS:
        small = cut_to(wide, setting.rows, losses["full"]["parameters"], weighting)
        losses[f"rank {2 * RANK} cut to rank {RANK}, {weighting}"] = small
    losses[f"rank {2 * RANK}"] = whole(wide, setting.rows)
    losses["dynamic"] = whole(trained(folder, data, "dynamic", RANK, seed, setting), setting.rows)
    return losses


def kept(data: str, seed: int, setting: Setting, folder: Path, runs: KeptRuns) -> dict[str, Any]:
    """Return the losses of one data set and seed: those that are kept, or newly measured ones, which are kept then."""
    name = f"{Path(data).name}-seed{seed}-steps{setting.steps}-rows{setting.rows}-head.json"
    if name not in runs:
        runs.keep(name, one(data, seed, setting, folder))
    return runs[name]


def summary(runs: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return, by data set, what every size differs by from the whole rank-8 adapter: mean and 95 % interval."""
    by_data: dict[str, Any] = {}
    for data in dict.fromkeys(name.partition(", seed")[0] for name in runs):
        mine = [run for name, run in runs.items() if name.startswith(f"{data}, seed")]
        full = np.array([run["full"]["loss"] for run in mine])
        by_data[data] = {"seeds": len(mine), "examples": full.shape[1], "loss": float(full.mean())}
        for key in mine[0]:
            if key != "full":
                losses = np.array([run[key]["loss"] for run in mine])
                by_data[data][key] = {
                    "parameters": mine[0][key]["parameters"],
                    "difference": results.mean_and_ends(losses - full),
                }
        for weighting in WEIGHTINGS:
            for share in SHARES:
                ours, theirs = (
                    np.array([run[f"{weighting}, {method}, {share:.0%}"]["loss"] for run in mine])
                    for method in ("global", "uniform")
                )
                by_data[data][f"{weighting}, global - uniform, {share:.0%}"] = {
                    "difference": results.mean_and_ends(ours - theirs)
                }
    return by_data


def main() -> None:
    """Train, measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="sentiment4", help="names or folders, separated by commas")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--rows", type=int, default=1500, help="held-out examples, at most")
    parser.add_argument("--name", default="compress", help="of the file of results")
    parser.add_argument("--quick", action="store_true", help="few steps and one seed: does it work, nothing more")
    arguments, _ = parser.parse_known_args()
    logging.disable(logging.WARNING)
    transformers_logging.disable_progress_bar()
    setting = Setting(40, 200) if arguments.quick else Setting(arguments.steps, arguments.rows)
    seeds = 1 if arguments.quick else arguments.seeds
    file, runs = "compress-quick" if arguments.quick else arguments.name, {}
    measured = KeptRuns.below(results.emptied(file) if arguments.quick else results.QUICK / "kept" / "compress")
    with tempfile.TemporaryDirectory() as place:
        for seed in range(seeds):
            for data in arguments.data.split(","):
                losses = kept(data, seed, setting, Path(place), measured)
                runs[f"{Path(data).name}, seed {seed}"] = losses
                figures = {"steps": setting.steps, "summary": summary(runs)}
                results.write(file, figures, "benchmarks.compress")
                means = {key: round(float(np.mean(row["loss"])), 4) for key, row in losses.items()}
                print(f"{data}, seed {seed}: {json.dumps(means)}", flush=True)
    print(json.dumps(summary(runs), indent=2))


if __name__ == "__main__":
    main()
