"""Is a suggested learning rate as good as the best of a grid? The rule is chosen on some data sets, reported on others.

    python -m benchmarks.rate --choose ../shared/data/clinc150 [--data ../shared/data/hwu64] [--seeds 1] [--steps 150]
        [--rank 1] [--method lora] [--rates 0.001,0.0025,0.00625,0.0156,0.039] [--rows 500] [--model minilm]
        [--batch 32] [--head-lr 0.01] [--known rate-hwu64] [--grid-from tuned-clinc150-r1,tuned-clinc150-r1-scale]

On each data set and seed a range test suggests a rate (`dynlora advise --rate`), and runs train at each rate of the
grid. On the data sets of `--choose` the loss of each rule, at each factor below its landmark, is read off the grid:
linear over log rate, the nearest end outside of it. On those of `--data` a run also trains at the suggested rate.
Figures are losses on held-out rows less that of the grid's best. They are written after each data set and seed.
With `--known` the range tests and grids of earlier files of results are taken: a suggestion is made of the test again.
With `--grids` their grids alone are: the range tests are made anew.
With `--grid-from` the data sets of `--choose` train no grid: they take that of files of `benchmarks.tuned`.
"""

from __future__ import annotations

import argparse
import json
import logging
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from transformers.utils import logging as transformers_logging

from benchmarks import results
from benchmarks.settings_arguments import add_fields, given
from dynlora import open_run
from dynlora.analysis.advice import BELOW, RULE, curves_of, mean_curve, suggested_rate
from dynlora.config import parse_config
from dynlora.training import run as training_run
from dynlora.training.advice import advise_rate

DEFAULT = parse_config({}).train.lr
"""The rate of a run that names none; it has to be in the grid."""

FACTORS = (1.0, 1.5, 2.0, 3.0, 5.0, 10.0)
"""How many times below its landmark a rule is tried."""


@dataclass(frozen=True)
class Setting:
    """What is trained.

    Attributes:
        model: its name.
        method: of training.
        rank: of the adapters.
        steps: optimizer steps of each run.
        batch: examples of a step.
        rates: of the grid, separated by commas.
        rows: held-out examples, at most.
        seeds: of each data set.
        head_lr: rate of a new output layer; 0 gives it that of the adapters, as in the first files of results.
    """

    model: str = "minilm"
    method: str = "lora"
    rank: int = 1
    steps: int = 150
    batch: int = 32
    rates: str = "0.001,0.0025,0.00625,0.0156,0.039"
    rows: int = 500
    seeds: int = 1
    head_lr: float = 0.01

    @property
    def grid(self) -> list[float]:
        """The rates as numbers."""
        return [float(rate) for rate in self.rates.split(",")]


def values_of(data: str, seed: int, setting: Setting) -> dict[str, Any]:
    """Return the values of a run at the default rate."""
    where = {"path": data} if Path(data).exists() else {"name": data}
    return {
        "seed": seed,
        "model": {"name": setting.model},
        "data": {**where, "max_eval": setting.rows},
        "adapter": {"rank": setting.rank},
        "strategy": {"name": setting.method},
        "train": {"steps": setting.steps, "batch_size": setting.batch, "head_lr": setting.head_lr or None},
        "log": {"eval_every": setting.steps, "checkpoint_every": setting.steps, "generate_rows": 0},
    }


def loss_at(values: Mapping[str, Any], lr: float, place: Path) -> float | None:
    """Train one run and return its mean loss on held-out examples; None where it diverged."""
    outcome = training_run.train(
        parse_config({**values, "train": {**values["train"], "lr": lr}}), place, progress=False
    )
    if outcome.state != "finished":
        return None
    last = open_run(outcome.folder).signal("held_out_loss").iloc[-1].drop("step", errors="ignore")
    return float(last.to_numpy(float).mean())


def tuned_grid(names: str, method: str) -> dict[str, float | None]:
    """Return the loss by rate that `benchmarks.tuned` came to with a method; of a rate in several files, the last."""
    losses: dict[str, float | None] = {}
    for name in (name for name in names.split(",") if name):
        losses |= json.loads((results.RESULTS / f"{name}.json").read_text("utf-8"))["figures"]["rates"][method]
    return dict(sorted(losses.items(), key=lambda item: float(item[0])))


def one(values: Mapping[str, Any], setting: Setting, place: Path, grid: Mapping[str, float | None]) -> dict[str, Any]:
    """Return a range test with the processor time that it took, and the losses of the grid where there is none yet."""
    began = time.process_time()
    answer = advise_rate(parse_config(values))
    cpu_s = time.process_time() - began
    losses = dict(grid) or {f"{rate:g}": loss_at(values, rate, place) for rate in setting.grid}
    return {"answer": answer, "cpu_s": cpu_s, "grid": losses, "suggested": None}


def known_runs(names: str, setting: Setting) -> dict[str, dict[str, Any]]:
    """Return what earlier files of results hold.

    Raises:
        SystemExit: where they are of another setting.
    """
    runs: dict[str, dict[str, Any]] = {}
    for name in (name for name in names.split(",") if name):
        figures = json.loads((results.RESULTS / f"{name}.json").read_text("utf-8"))["figures"]
        if {"head_lr": 0.0, "batch": 32, **figures["setting"], "seeds": 0} != {**vars(setting), "seeds": 0}:
            raise SystemExit(f"--known {name}: was made with another setting")
        runs |= figures["runs"]
    return runs


def read_off(losses: Mapping[str, float | None], rate: float) -> float:
    """Return the loss of a rate, linear over log rate; a run that diverged is infinitely bad."""
    rates = [float(one) for one in losses]
    known = [np.inf if loss is None else loss for loss in losses.values()]
    return float(np.interp(np.log(rate), np.log(rates), known))


def of_rules(runs: Sequence[Mapping[str, Any]]) -> dict[str, float | None]:
    """Return, by rule and factor, the mean loss read off the grid, less that of its best rate.

    Runs whose test suggests no rate are left out: no rule would do so.
    """
    with_rate = [run for run in runs if _rate_by(run["answer"]) is not None]
    table: dict[str, float | None] = {}
    for rule in BELOW:
        for factor in FACTORS:
            differences = [
                read_off(run["grid"], rate * BELOW[rule] / factor) - _best(run["grid"])[1]
                for run in with_rate
                if (rate := _rate_by(run["answer"], rule)) is not None
            ]
            mean = float(np.mean(differences)) if differences and len(differences) == len(with_rate) else np.inf
            table[f"{rule} / {factor:g}"] = mean if np.isfinite(mean) else None
    return table


def _rate_by(answer: Mapping[str, Any], rule: str | None = None) -> float | None:
    return suggested_rate(mean_curve(curves_of(answer)), rule).rate


def _best(losses: Mapping[str, float | None]) -> tuple[float, float]:
    loss, rate = min((loss, float(rate)) for rate, loss in losses.items() if loss is not None)
    return rate, loss


def summary(runs: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return, by data set and seed, the suggestion beside the grid's best and the default rate, in nats."""
    rows: dict[str, Any] = {}
    for name, run in runs.items():
        rate, least = _best(run["grid"])
        default = run["grid"].get(f"{DEFAULT:g}")
        rows[name] = {
            "suggested_rate": _rate_by(run["answer"]),
            "level": run["answer"]["level"],
            "best_rate": rate,
            "best_loss": least,
            "suggested": None if run["suggested"] is None else run["suggested"] - least,
            "default": None if default is None else default - least,
            "cpu_s": run["cpu_s"],
        }
    return rows


def report(figures: Mapping[str, Any]) -> None:
    """Print the figures."""
    for name, row in figures["summary"].items():
        print(f"{name}: {json.dumps(row)}")
    for rule, difference in figures["rules"].items():
        print(f"  {rule:16} {'diverged' if difference is None else f'{difference:+.4f}'}")
    print(flush=True)


def main() -> None:
    """Test, train, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--choose", default="", help="names or folders that choose the rule, separated by commas")
    parser.add_argument("--data", default="", help="names or folders that report it")
    parser.add_argument("--known", default="", help="names of earlier files of results, separated by commas")
    parser.add_argument("--grids", default="", help="the same, for their grids alone")
    parser.add_argument("--grid-from", default="", help="names of files of benchmarks.tuned, for those that choose")
    parser.add_argument("--out", default="rate", help="name of the file of results")
    parser.add_argument("--quick", action="store_true", help="few steps: does it work, nothing more")
    add_fields(parser, Setting())
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)
    transformers_logging.disable_progress_bar()
    setting, reporting = given(arguments, Setting()), arguments.data
    if arguments.quick:
        setting, reporting = replace(setting, steps=20, rows=64, rates=f"{DEFAULT:g},0.01"), "sentiment4"
    runs: dict[str, dict[str, Any]] = {}
    choice: dict[str, dict[str, Any]] = {}
    known, grids = known_runs(arguments.known, setting), known_runs(arguments.grids, setting)
    choosing = [data for data in arguments.choose.split(",") if data]
    with tempfile.TemporaryDirectory() as place:
        for data in [*choosing, *(data for data in reporting.split(",") if data)]:
            earlier = [name for name in known if name.startswith(f"{Path(data).name}, seed ")]
            for seed in range(max(setting.seeds, len(earlier))):
                name, values = f"{Path(data).name}, seed {seed}", values_of(data, seed, setting)
                grid = tuned_grid(arguments.grid_from, setting.method) if data in choosing else {}
                grid = grid or grids.get(name, {}).get("grid", {})
                runs[name] = run = dict(known.get(name) or one(values, setting, Path(place), grid))
                if data in choosing:
                    choice[name] = run
                else:  # the rule may be another one than that of an earlier file
                    rate = _rate_by(run["answer"])
                    run["suggested"] = None if rate is None else loss_at(values, rate, Path(place))
                figures = {
                    "setting": vars(setting),
                    "rule": f"{RULE} / {BELOW[RULE]:g}",
                    "chosen_on": list(choice),
                    "grid_from": arguments.grid_from,
                    "rules": of_rules(list(choice.values()) or list(runs.values())),
                    "summary": summary(runs),
                    "runs": runs,
                }
                results.write(
                    f"{arguments.out}-quick" if arguments.quick else arguments.out, figures, "benchmarks.rate"
                )
                report(figures)


if __name__ == "__main__":
    main()
