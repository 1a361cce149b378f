"""Does it matter where rank is, when rank is short? Random facts, a small decoder, adapters of rank one.

    python -m benchmarks.fact_memory rates|headroom|methods [--seeds 8] [--rank 1] [--facts 160] [--steps 300]

`rates` tunes the peak rate of each group of arms and of each method on seeds that nothing else uses, and leaves the
curve; `headroom` trains every fixed placement at its group's rate; `methods` compares `lora`, `dynamic` and its
variants, each at its own rate. A seed draws the facts, A and the batches; all sides share it. Recall is the fraction of
facts whose value has every symbol right. Bits are what the values' entropy exceeds the loss by, over all facts, per
parameter of the budget. Runs are kept below `benchmarks/out`, so that what was ended early continues.
"""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from transformers.utils import logging as transformers_logging

from benchmarks import results
from benchmarks.fact_memory.world import BITS, saved_decoder, saved_facts
from benchmarks.fixed_run import measured, written_ranks
from benchmarks.headroom import about, conclusion, mean_and_ends, modules_of, report, table_of, verdict
from benchmarks.placements import Placement, arms
from dynlora.tasks.causal_lm import CausalLM

RATES = (0.005, 0.01, 0.015, 0.02, 0.03)
TUNING_SEED, FIRST_SEED = 1000, 1
"""First of the seeds that choose a rate, and of those that are reported; 0 was used to choose the sizes."""

DECODER_STEPS = 2000

FREE: dict[str, Any] = {"name": "dynamic", "min_rank": 0, "gates": "off"}
METHODS: dict[str, dict[str, Any]] = {
    "lora": {"name": "lora"},
    "dynamic": FREE,
    "dynamic, gates": {**FREE, "gates": "module"},
    "dynamic, random": {**FREE, "allocation": "random"},
    "dynamic, spectral": {**FREE, "rank_by": "spectral"},
    "dynamic, family": {**FREE, "gain_scope": "family"},
}
"""At rank 1 the default `min_rank` of `dynamic` moves no rank, so that it is 0 here at every rank."""

TUNED_METHODS = ("dynamic", "dynamic, random", "dynamic, spectral")

GROUPS = {
    "random ": "random 1", " half": "first half", "self_attn": "self_attn.v_proj alone", "mlp.": "mlp.down_proj alone"
}  # fmt: skip
"""Arms by a part of their names, and the arm whose rate they take; others have their own."""


def tuned_as(side: str) -> str:
    """Return the arm or method whose rate an arm or method takes."""
    if side in METHODS:
        return "uniform" if side == "lora" else side if side in TUNED_METHODS else "dynamic"
    return next((arm for part, arm in GROUPS.items() if part in side), side)


@dataclass(frozen=True)
class World:
    """What all runs share.

    Attributes:
        place: folder of the decoder, the facts and the runs.
        facts: that a run learns.
        steps: optimizer steps of a run.
        rank: uniform rank whose parameters are the budget.
        decoder_steps: of the decoder's own training.
    """

    place: Path
    facts: int
    steps: int
    rank: int
    decoder_steps: int = DECODER_STEPS

    @property
    def model(self) -> str:
        """The decoder's folder."""
        return str(saved_decoder(self.place / f"decoder-{self.decoder_steps}", self.decoder_steps))

    def placements(self) -> dict[str, Placement]:
        """Return the arms of this decoder."""
        return arms(modules_of(self.model, CausalLM(())), self.rank)

    def values(self, strategy: Mapping[str, Any], seed: int, lr: float) -> dict[str, Any]:
        """Return the values of one run; the scaling is 2 everywhere, and nothing is dropped."""
        data = saved_facts(self.place / f"facts-{self.facts}-{seed}", self.facts, seed)
        return {
            "seed": seed, "model": {"name": self.model}, "data": {"path": str(data), "max_length": 16},
            "adapter": {"rank": self.rank, "alpha": 2 * self.rank, "dropout": 0.0}, "strategy": dict(strategy),
            "train": {
                "steps": self.steps, "batch_size": self.facts // 2, "lr": lr, "weight_decay": 0.0, "precision": "fp32",
            },
        }  # fmt: skip

    def run(self, name: str, strategy: Mapping[str, Any], seed: int, lr: float) -> dict[str, Any]:
        """Return what a run learned, from its file where it was made before."""
        key = f"{self.facts}-{self.steps}-{self.decoder_steps}-r{self.rank}-{name}-{lr:g}-{seed}.json"
        kept = self.place / "runs" / key.replace(" ", "_")
        if kept.is_file():
            return json.loads(kept.read_text("utf-8"))
        found = measured(self.values(strategy, seed, lr), by_token=True)
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_text(json.dumps(found), "utf-8")
        print(f"{name}, seed {seed}, rate {lr:g}: {json.dumps(self.summed([found]))}", flush=True)
        return found

    def arm(self, name: str, placement: Placement, seed: int, lr: float) -> dict[str, Any]:
        """Return what a run with given ranks learned."""
        self.place.mkdir(parents=True, exist_ok=True)
        ranks = written_ranks(placement.ranks, self.place / f"ranks-{self.rank}.json")
        return self.run(name, {"name": "lora", "ranks_from": ranks}, seed, lr)

    def summed(self, runs: list[dict[str, Any]]) -> dict[str, Any]:
        """Return means over runs: loss of a value in nats, recall, bits per parameter; of no number where one broke."""
        if any("loss" not in run for run in runs):
            return {"diverged": sum("loss" not in run for run in runs)}
        loss = float(np.mean([run["loss"] for run in runs]))
        recall = float(np.mean([run["right"] for run in runs]))
        bits = (BITS - loss / np.log(2)) * self.facts / runs[0]["budget"]
        return {"loss": round(loss, 4), "recall": round(recall, 4), "bits": round(float(bits), 4)}


def file_of(part: str, world: World) -> str:
    """Return the name of a part's results."""
    return f"fact_memory-{part}-r{world.rank}"


def rates(world: World, seeds: list[int]) -> dict[str, Any]:
    """Return the curve of every group of arms and method over the rates, and the rate it chooses."""
    placements, curves = world.placements(), {}
    sides = [*dict.fromkeys(map(tuned_as, placements)), *TUNED_METHODS]
    for side in sides:
        curve = {}
        for lr in RATES:
            if side in placements:
                runs = [world.arm(side, placements[side], seed, lr) for seed in seeds]
            else:
                runs = [world.run(side, METHODS[side], seed, lr) for seed in seeds]
            curve[f"{lr:g}"] = world.summed(runs)
        curves[side] = {"curve": curve, "chosen": float(min(curve, key=lambda lr: curve[lr].get("loss", np.inf)))}
        write(world, "rates", {"seeds": seeds, "sides": curves})
        print(f"{side}: {curves[side]['chosen']:g}  {json.dumps(curve)}", flush=True)
    return curves


def chosen(world: World, side: str) -> float:
    """Return the rate that a side chose."""
    file = results.RESULTS / f"{file_of('rates', world)}.json"
    return json.loads(file.read_text("utf-8"))["figures"]["sides"][side]["chosen"]


def headroom(world: World, seeds: list[int]) -> dict[str, Any]:
    """Train every arm on every seed and return the verdict."""
    placements, runs, done = world.placements(), {}, []
    found: dict[str, Any] = {}
    for seed in seeds:
        for name, placement in placements.items():
            runs[f"{name}, seed {seed}"] = world.arm(name, placement, seed, chosen(world, tuned_as(name)))
        done.append(seed)
        found = verdict(table_of(runs, list(placements), done))
        means = {name: world.summed([runs[f"{name}, seed {s}"] for s in done]) for name in placements}
        figures = {"verdict": found, "conclusion": conclusion(found), "arms": means, "placements": about(placements)}
        write(world, "headroom", figures)
    report(found)
    return found


def methods(world: World, seeds: list[int]) -> dict[str, Any]:
    """Train every method on every seed and return its means, and its differences to `lora` and the random control."""
    uniform, runs, done, found = world.placements()["uniform"], {}, [], {}
    for seed in seeds:
        for name, strategy in METHODS.items():
            lr = chosen(world, tuned_as(name))
            is_uniform = name == "lora"  # the arm of the headroom, so that it is trained once
            one = world.arm("uniform", uniform, seed, lr) if is_uniform else world.run(name, strategy, seed, lr)
            runs[f"{name}, seed {seed}"] = one
        done.append(seed)
        losses, right = table_of(runs, list(METHODS), done), of_right(runs, done)
        found = {
            name: {
                **world.summed([runs[f"{name}, seed {s}"] for s in done]),
                "ranks": {s: runs[f"{name}, seed {s}"].get("ranks") for s in done},
                **{f"loss - {other}": mean_and_ends(losses[name] - losses[other])
                   for other in ("lora", "dynamic, random") if {name, other} <= set(losses)},
                **{f"recall - {other}": mean_and_ends(right[name] - right[other])
                   for other in ("lora", "dynamic, random") if {name, other} <= set(losses)},
            }
            for name in METHODS
        }  # fmt: skip
        write(world, "methods", {"seeds": done, "methods": found})
    for name, row in found.items():
        print(f"{name:20} {json.dumps({key: value for key, value in row.items() if key != 'ranks'})}")
    return found


def of_right(runs: Mapping[str, Mapping[str, Any]], seeds: list[int]) -> dict[str, np.ndarray]:
    """Return which facts each method recalls, (seeds, facts) of 0 and 1; methods with a broken run are left out."""
    found = {name: [runs[f"{name}, seed {seed}"].get("right") for seed in seeds] for name in METHODS}
    return {name: np.array(rows, float) for name, rows in found.items() if all(row is not None for row in rows)}


def write(world: World, part: str, figures: Mapping[str, Any]) -> None:
    """Write a part's results with what all runs share."""
    shared = {"facts": world.facts, "bits of a value": BITS, "steps": world.steps, "rank": world.rank}
    results.write(file_of(part, world), {**shared, **figures}, "benchmarks.fact_memory")


def quick() -> None:
    """Learn a few facts at two placements: does it work, nothing more."""
    world = World(results.emptied("fact_memory-quick"), 48, 150, 1, decoder_steps=200)
    placements = world.placements()
    wanted = ("uniform", "attention")
    found = {name: world.arm(name, placements[name], 0, 0.02) for name in wanted}
    parameters = {name: run["parameters"] for name, run in found.items()}
    figures = {"guess": BITS * float(np.log(2)), "parameters": parameters}
    figures |= {"arms": {name: world.summed([run]) for name, run in found.items()}}
    results.write("fact_memory-quick", figures, "benchmarks.fact_memory")


def main() -> None:
    """Do one part, or a small form of all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = {"rates": rates, "headroom": headroom, "methods": methods}
    parser.add_argument("part", nargs="?", choices=[*parts], help="empty: all, one after the other")
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--tuning-seeds", type=int, default=2)
    parser.add_argument("--rank", type=int, default=1)
    parser.add_argument("--facts", type=int, default=160)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--quick", action="store_true", help="a small form: does it work, nothing more")
    arguments, _ = parser.parse_known_args()
    logging.disable(logging.WARNING)
    transformers_logging.disable_progress_bar()
    if arguments.quick:
        quick()
        return
    world = World(results.QUICK / "fact_memory", arguments.facts, arguments.steps, arguments.rank)
    for name in [arguments.part] if arguments.part else parts:
        first, n = (TUNING_SEED, arguments.tuning_seeds) if name == "rates" else (FIRST_SEED, arguments.seeds)
        parts[name](world, list(range(first, first + n)))


if __name__ == "__main__":
    main()
