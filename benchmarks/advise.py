"""Advice before training: is an adapter with the suggested ranks better than uniform LoRA, at the same parameters?

    python -m benchmarks.advise [--data sentiment4,../shared/data/glue/sst2] [--seeds 3] [--steps 200] [--rank 4]

On each data set and seed a short look suggests ranks (`dynlora advise`). Then plain LoRA trains with them, with the
weak families left out, with ranks drawn at random and with one rank everywhere: the same rows in the same order, the
same draws of A, the same scaling, at most the same parameters. Differences to uniform ranks are paired over held-out
examples and seeds. Results are written after each seed.
"""

from __future__ import annotations

import argparse
import json
import logging
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from transformers.utils import logging as transformers_logging

from benchmarks import results
from dynlora import open_run
from dynlora.config import parse_config
from dynlora.engine.allocation.suggested_ranks import RankRequest
from dynlora.engine.model.modules import ModuleInfo
from dynlora.training import run as training_run
from dynlora.training.advice import GROWTH_LIMIT, AdviceRequest, advise

ARMS = ("uniform", "advised", "weak left out", "random")
"""Ways to rank; all but the first are compared with it."""


@dataclass(frozen=True)
class Setting:
    """How much is trained and measured.

    Attributes:
        steps: optimizer steps of each run.
        rank: of uniform LoRA.
        rows: held-out examples, at most.
    """

    steps: int
    rank: int
    rows: int


def values_of(data: str, seed: int, setting: Setting, model: str) -> dict[str, Any]:
    """Return the values of a run of plain LoRA."""
    where = {"path": data} if Path(data).exists() else {"name": data}
    return {
        "seed": seed,
        "model": {"name": model},
        "data": {**where, "max_eval": setting.rows},
        "adapter": {"rank": setting.rank, "alpha": 2 * setting.rank},
        "strategy": {"name": "lora"},
        "train": {"steps": setting.steps, "head_lr": None},
        "log": {"eval_every": setting.steps, "checkpoint_every": setting.steps, "generate_rows": 0},
    }


def drawn_ranks(advice: Mapping[str, Any], seed: int) -> dict[str, int]:
    """Return random ranks under the same budget and limits."""
    infos = [ModuleInfo(row["name"], row["layer"], row["kind"], row["d_in"], row["d_out"]) for row in advice["modules"]]
    rank, rng = advice["uniform_rank"], np.random.default_rng([seed, 9])
    limits = [max(rank, round(GROWTH_LIMIT * rank), 4) for _ in infos]
    gains = [np.sort(rng.random(limit))[::-1] * info.cost for limit, info in zip(limits, infos, strict=True)]
    ranks = RankRequest(infos, rank, limits, advice["budget"]).ranks(gains)
    return {info.name: int(one) for info, one in zip(infos, ranks, strict=True)}


def losses(values: Mapping[str, Any], ranks: Mapping[str, int] | None, place: Path) -> np.ndarray:
    """Train one run and return the loss of every held-out example, (n,)."""
    given = dict(values)
    if ranks is not None:
        file = place / "ranks.json"
        file.write_text(json.dumps(dict(ranks)), "utf-8")
        given["strategy"] = {"name": "lora", "ranks_from": str(file)}
    outcome = training_run.train(parse_config(given), place, progress=False)
    if outcome.state != "finished":
        raise SystemExit(f"{outcome.folder.name}: {outcome.error}")
    return open_run(outcome.folder).signal("held_out_loss").iloc[-1].drop("step", errors="ignore").to_numpy(float)


def one(data: str, seed: int, setting: Setting, model: str, place: Path) -> dict[str, Any]:
    """Advise, train every arm, and return the losses of each with its ranks and the advice's own figures."""
    values = values_of(data, seed, setting, model)
    advice = advise(parse_config(values), AdviceRequest(is_timed=False))
    smaller = advise(parse_config(values), AdviceRequest(leave_out=True, is_timed=False))
    ranks: dict[str, Mapping[str, int] | None] = {
        "uniform": None,
        "advised": advice["ranks"],
        "weak left out": smaller["ranks"],
        "random": drawn_ranks(advice, seed),
    }
    return {
        "confidence": advice["confidence"],
        "families": {family["name"]: family["gain_per_parameter"] for family in advice["families"]},
        "left_out": sorted(family["name"] for family in smaller["families"] if family["can_go"]),
        "loss": {arm: losses(values, ranks[arm], place).tolist() for arm in ARMS},
    }


def summary(runs: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return, by data set, the loss of uniform ranks and what every other arm differs by: mean and 95 % interval."""
    rows: dict[str, Any] = {}
    for data in dict.fromkeys(name.partition(", seed")[0] for name in runs):
        mine = [run for name, run in runs.items() if name.startswith(f"{data}, seed")]
        base = _of(mine, ARMS[0])
        rows[data] = {
            "seeds": len(mine),
            "examples": base.shape[1],
            "loss": float(base.mean()),
            "difference": {arm: results.mean_and_ends(_of(mine, arm) - base) for arm in ARMS[1:]},
            "agreement": float(np.mean([run["confidence"]["agreement"] for run in mine])),
            "left_out": mine[0]["left_out"],
        }
    return rows


def _of(runs: Sequence[Mapping[str, Any]], arm: str) -> np.ndarray:
    return np.array([run["loss"][arm] for run in runs])


def report(rows: Mapping[str, Any]) -> None:
    """Print what was found."""
    for data, row in rows.items():
        print(f"\n{data}: uniform {row['loss']:.4f} nats, {row['seeds']} seeds, {row['examples']} examples")
        for arm, (mean, low, high) in row["difference"].items():
            print(f"  {arm:14} {mean:+.4f} (95 % CI {low:+.4f} to {high:+.4f})")
        print(f"  left out: {', '.join(row['left_out']) or 'nothing'}; halves agree on {row['agreement']:.0%}")


def main() -> None:
    """Advise, train, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="sentiment4", help="names or folders, separated by commas")
    parser.add_argument("--model", default="minilm")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--rank", type=int, default=4)
    parser.add_argument("--rows", type=int, default=1500, help="held-out examples, at most")
    parser.add_argument("--quick", action="store_true", help="few steps and one seed: does it work, nothing more")
    arguments, _ = parser.parse_known_args()
    logging.disable(logging.WARNING)
    transformers_logging.disable_progress_bar()
    steps, rows, seeds = (20, 200, 1) if arguments.quick else (arguments.steps, arguments.rows, arguments.seeds)
    setting, runs = Setting(steps, arguments.rank, rows), {}
    with tempfile.TemporaryDirectory() as place:
        for seed in range(seeds):
            for data in arguments.data.split(","):
                runs[f"{Path(data).name}, seed {seed}"] = one(data, seed, setting, arguments.model, Path(place))
                figures = {"steps": steps, "rank": arguments.rank, "summary": summary(runs)}
                results.write("advise-quick" if arguments.quick else "advise", figures, "benchmarks.advise")
                report(summary(runs))
                print(flush=True)


if __name__ == "__main__":
    main()
