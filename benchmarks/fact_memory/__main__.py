"""Does it matter where rank is, when rank is short? Random facts, a small decoder, adapters of rank one.

    python -m benchmarks.fact_memory rates|headroom|confirm|wide [--seeds 8] [--rank 1] [--clip 1]
        [--first-seed 1]

`rates` tunes the peak rate of each group of arms and of each method on seeds that nothing else uses, and leaves the
curve; `headroom` trains every fixed placement at its group's rate; `confirm` trains the one it chose, and uniform, on
other seeds; `wide` tunes `dynamic` as it is today, which starts wide and cuts, and sets it against
uniform and the chosen placement. A seed draws the facts, A and the batches; all sides share it. Recall is the fraction
of facts whose value has every symbol right. Bits are what the values' entropy exceeds the loss by, over all facts, per
parameter of the budget. Runs are kept below `benchmarks/out`, so that what was ended early continues.
"""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from transformers.utils import logging as transformers_logging

from benchmarks import results
from benchmarks.allocators import ALLOCATORS
from benchmarks.fact_memory.world import BITS, saved_decoder, saved_facts
from benchmarks.fixed_run import measured, written_ranks
from benchmarks.headroom import about, conclusion, mean_and_ends, modules_of, report, table_of, verdict
from benchmarks.placements import Placement, arms
from dynlora.tasks.causal_lm import CausalLM

RATES = (0.005, 0.01, 0.015, 0.02, 0.03)
CLIPPED_RATES = (0.01, 0.015, 0.02, 0.03, 0.05)
"""Where gradients are clipped, larger rates do not diverge."""

TUNING_SEED, FIRST_SEED = 1000, 1
"""First of the seeds that choose a rate, and of those that are reported; 0 was used to choose the sizes."""

DECODER_STEPS = 2000

BEST = "best placement"

TUNED_METHODS = ("dynamic", "dynamic, random", "dynamic, wide")

GROUPS = {
    "random ": "random 1",
    " half": "first half",
    "self_attn": "self_attn.v_proj alone",
    "mlp.": "mlp.down_proj alone",
}
"""Arms by a part of their names, and the arm whose rate they take; others have their own."""


def tuned_as(side: str) -> str:
    """Return the arm or method whose rate an arm or method takes."""
    if side in ALLOCATORS:
        usual = "dynamic, random" if "random" in side else "dynamic"
        return "uniform" if side == "lora" else side if side in TUNED_METHODS else usual
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
        clip: largest norm of a gradient; None leaves it.
    """

    place: Path
    facts: int
    steps: int
    rank: int
    decoder_steps: int = DECODER_STEPS
    clip: float | None = None

    @property
    def model(self) -> str:
        """The decoder's folder."""
        return str(saved_decoder(self.place / f"decoder-{self.decoder_steps}", self.decoder_steps))

    @property
    def clipped(self) -> str:
        """What the names of files say of clipping."""
        return "" if self.clip is None else f"-clip{self.clip:g}"

    def placements(self) -> dict[str, Placement]:
        """Return the arms of this decoder."""
        return arms(modules_of(self.model, CausalLM(())), self.rank)

    def values(self, strategy: Mapping[str, Any], seed: int, lr: float) -> dict[str, Any]:
        """Return the values of one run; the scaling is 2 everywhere, and nothing is dropped."""
        data = saved_facts(self.place / f"facts-{self.facts}-{seed}", self.facts, seed)
        return {
            "seed": seed,
            "model": {"name": self.model},
            "data": {"path": str(data), "max_length": 16},
            "adapter": {"rank": self.rank, "alpha": 2 * self.rank, "dropout": 0.0},
            "strategy": dict(strategy),
            "train": {
                "steps": self.steps,
                "batch_size": self.facts // 2,
                "lr": lr,
                "weight_decay": 0.0,
                "precision": "fp32",
                "max_grad_norm": self.clip,
            },
        }

    def run(self, name: str, strategy: Mapping[str, Any], seed: int, lr: float) -> dict[str, Any]:
        """Return what a run learned, from its file where it was made before."""
        key = f"{self.facts}-{self.steps}-{self.decoder_steps}-r{self.rank}{self.clipped}-{name}-{lr:g}-{seed}.json"
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
    return f"fact_memory-{part}-r{world.rank}{world.clipped}"


def rates(world: World, seeds: list[int]) -> dict[str, Any]:
    """Return the curve of every group of arms and method over the rates, and the rate it chooses."""
    placements, curves = world.placements(), {}
    sides = [*dict.fromkeys(map(tuned_as, placements)), *TUNED_METHODS]
    if world.clip is not None:
        sides = ["uniform", best_arm(world), "dynamic"]
    for side in sides:
        curve = {}
        for lr in RATES if world.clip is None else CLIPPED_RATES:
            if side in placements:
                runs = [world.arm(side, placements[side], seed, lr) for seed in seeds]
            else:
                runs = [world.run(side, ALLOCATORS[side], seed, lr) for seed in seeds]
            curve[f"{lr:g}"] = world.summed(runs)
        curves[side] = {"curve": curve, "chosen": float(min(curve, key=lambda lr: curve[lr].get("loss", np.inf)))}
        write(world, "rates", {"seeds": seeds, "sides": curves})
        print(f"{side}: {curves[side]['chosen']:g}  {json.dumps(curve)}", flush=True)
    return curves


def chosen(world: World, side: str) -> float:
    """Return the rate that a side chose, or the side that it is tuned as."""
    file = results.RESULTS / f"{file_of('rates', world)}.json"
    curves = json.loads(file.read_text("utf-8"))["figures"]["sides"]
    usual = "dynamic" if side in ALLOCATORS and side != "lora" else "uniform"
    return next(curves[name]["chosen"] for name in (side, tuned_as(side), usual) if name in curves)


def headroom(world: World, seeds: list[int]) -> dict[str, Any]:
    """Train every arm on every seed and return the verdict."""
    placements, runs, done = world.placements(), {}, []
    found: dict[str, Any] = {}
    for seed in seeds:
        for name, placement in placements.items():
            runs[f"{name}, seed {seed}"] = world.arm(name, placement, seed, chosen(world, name))
        done.append(seed)
        found = verdict(table_of(runs, list(placements), done))
        means = {name: world.summed([runs[f"{name}, seed {s}"] for s in done]) for name in placements}
        figures = {"verdict": found, "conclusion": conclusion(found), "arms": means, "placements": about(placements)}
        write(world, "headroom", figures)
    report(found)
    return found


def confirm(world: World, seeds: list[int]) -> dict[str, Any]:
    """Train uniform and the arm that the headroom chose on other seeds; return means and the difference."""
    placements, best = world.placements(), best_arm(world)
    runs: dict[str, Any] = {}
    for seed in seeds:
        for name in ("uniform", best):
            runs[f"{name}, seed {seed}"] = world.arm(name, placements[name], seed, chosen(world, name))
    tables = table_of(runs, ["uniform", best], seeds)
    recalled = [np.array([runs[f"{name}, seed {s}"]["right"] for s in seeds], float) for name in ("uniform", best)]
    means = {name: world.summed([runs[f"{name}, seed {s}"] for s in seeds]) for name in ("uniform", best)}
    found = {
        "seeds": seeds,
        BEST: best,
        "arms": means,
        "loss - uniform": mean_and_ends(tables[best] - tables["uniform"]),
        "recall - uniform": mean_and_ends(recalled[1] - recalled[0]),
        "loss by seed": {name: tables[name].mean(1).round(3).tolist() for name in tables},
        "rates": {name: chosen(world, name) for name in ("uniform", best)},
    }
    write(world, "confirm", found)
    print(json.dumps(found))
    return found


WIDE = "dynamic, wide"


def wide(world: World, seeds: list[int]) -> dict[str, Any]:
    """Tune `dynamic` that starts wide, train it, uniform and the chosen arm on the seeds; return the differences."""
    placements, best = world.placements(), best_arm(world)
    tuning = [TUNING_SEED, TUNING_SEED + 1]
    curve = {lr: world.summed([world.run(WIDE, ALLOCATORS[WIDE], seed, lr) for seed in tuning]) for lr in RATES}
    lr = min(curve, key=lambda rate: curve[rate].get("loss", np.inf))
    runs: dict[str, Any] = {}
    for seed in seeds:
        for name in ("uniform", best):
            runs[f"{name}, seed {seed}"] = world.arm(name, placements[name], seed, chosen(world, name))
        runs[f"{WIDE}, seed {seed}"] = world.run(WIDE, ALLOCATORS[WIDE], seed, lr)
    sides = ("uniform", best, WIDE)
    tables = table_of(runs, list(sides), seeds)
    found = {
        "seeds": seeds,
        "rates": {f"{rate:g}": one for rate, one in curve.items()},
        "chosen": lr,
        BEST: best,
        "means": {name: world.summed([runs[f"{name}, seed {s}"] for s in seeds]) for name in sides},
        "loss by seed": {name: table.mean(1).round(3).tolist() for name, table in tables.items()},
        **{f"loss - {other}": mean_and_ends(tables[WIDE] - tables[other]) for other in ("uniform", best)},
        "ranks": [runs[f"{WIDE}, seed {seed}"]["ranks"] for seed in seeds],
    }
    write(world, "wide", found)
    print(json.dumps({name: one for name, one in found.items() if name != "ranks"}))
    return found


def best_arm(world: World) -> str:
    """Return the arm that the headroom chose, without clipping."""
    file = results.RESULTS / f"{file_of('headroom', replace(world, clip=None))}.json"
    return json.loads(file.read_text("utf-8"))["figures"]["verdict"]["best"]


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
    parts = {"rates": rates, "headroom": headroom, "confirm": confirm, "wide": wide}
    parser.add_argument("part", nargs="?", choices=[*parts], help="empty: all, one after the other")
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--first-seed", type=int, default=FIRST_SEED)
    parser.add_argument("--tuning-seeds", type=int, default=2)
    parser.add_argument("--clip", type=float, help="largest norm of a gradient; empty: gradients are not clipped")
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
    world = World(results.QUICK / "fact_memory", arguments.facts, arguments.steps, arguments.rank, clip=arguments.clip)
    for name in [arguments.part] if arguments.part else ("rates", "headroom", "wide"):
        first, n = (arguments.first_seed, arguments.seeds)
        if name == "rates":
            first, n = TUNING_SEED, arguments.tuning_seeds
        parts[name](world, list(range(first, first + n)))


if __name__ == "__main__":
    main()
