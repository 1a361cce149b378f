"""Is a rank enough where the capacity line says so? Its word for a setting beside what more rank gained there.

    python -m benchmarks.rank_capacity facts [--facts 40,160,640] [--ranks 1,2,4] [--seeds 2] [--steps 300]
    python -m benchmarks.rank_capacity tasks --data ../shared/data/glue

`facts` trains the decoder of `benchmarks.fact_memory` on random facts, of which every bit is known: no rule predicts
them. Each rank takes the rate that is best on a seed that nothing else uses. `tasks` trains nothing. It measures what
is to be learned of the tasks of `benchmarks.quality`, whose runs at two ranks are committed, and reads pairs of ranks
from the files of `benchmarks.rate`. A gain is the loss of a rank less that of the next larger one, in nats per example,
with an interval over seeds and examples; more rank helps where that interval is above 0 and the gain above `LEAST`.
"""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from transformers.utils import logging as transformers_logging

from benchmarks import results
from benchmarks.fact_memory.__main__ import TUNING_SEED, World
from benchmarks.fact_memory.world import BITS
from benchmarks.kept_runs import KeptRuns
from benchmarks.quality.tasks import TASKS, task_data
from dynlora.config import parse_config
from dynlora.engine.evaluation.to_learn import bits_to_learn, capacity_bits, labels_to_learn, sampled, verdict
from dynlora.engine.recorder import NullRecorder
from dynlora.training.advice import LABELS
from dynlora.training.build import build_trainer, make_accelerator
from dynlora.training.inputs import load_inputs

LEAST = 0.01
"""Gain in nats per example below which more rank is not worth its parameters."""

RATES = (0.01, 0.02, 0.04)

QUALITY = {"sst2": (1, 4), "sentiment4": (1, 4), "mrpc": (1, 4)}
"""Ranks at which runs of uniform LoRA at a tuned rate are committed, by task."""


def line(bits: float, parameters: int) -> dict[str, Any]:
    """Return what the capacity line says of a setting."""
    word = verdict(bits, parameters)
    return {"bits": bits, "parameters": parameters, "capacity": capacity_bits(parameters), "verdict": word}


def outcome(smaller: np.ndarray, larger: np.ndarray) -> dict[str, Any]:
    """Return what more rank gained.

    Args:
        smaller: losses at the smaller rank, (seeds, examples).
        larger: the same at the larger rank.
    """
    gain, low, high = results.mean_and_ends(smaller - larger)
    helps = low > 0 and gain > LEAST
    return {"loss": float(smaller.mean()), "gain": [gain, low, high], "helps": helps}


# --- facts


def best_rate(world: World) -> float:
    """Return the rate with the lowest loss on the tuning seed."""
    runs = {lr: world.run("lora", {"name": "lora"}, TUNING_SEED, lr) for lr in RATES}
    return min(runs, key=lambda lr: np.mean(runs[lr].get("loss", [np.inf])))


def facts(numbers: Sequence[int], ranks: Sequence[int], seeds: int, steps: int) -> Iterator[dict[str, Any]]:
    """Yield a row for each number of facts and rank: what the line says, what was learned, what more rank gained."""
    for number in numbers:
        losses: dict[int, np.ndarray] = {}
        rows: dict[int, dict[str, Any]] = {}
        for rank in ranks:
            world = World(results.QUICK / "fact_memory", number, steps, rank, clip=1.0)
            rate = best_rate(world)
            runs = [world.run("lora", {"name": "lora"}, seed, rate) for seed in range(1, seeds + 1)]
            if any("loss" not in run for run in runs):
                raise SystemExit(f"{number} facts at rank {rank} diverged at {rate:g}, which one seed chose")
            losses[rank] = np.array([run["loss"] for run in runs])
            learned = number * (BITS - float(losses[rank].mean()) / np.log(2))
            rows[rank] = {
                "name": f"{number} facts",
                "rank": rank,
                "rate": rate,
                "seeds": seeds,
                **line(number * BITS, runs[0]["parameters"]),
                "recall": float(np.mean([run["right"] for run in runs])),
                "learned": learned,
            }
        for rank, larger in pairwise(ranks):
            yield {**rows[rank], "larger": larger, **outcome(losses[rank], losses[larger])}
        yield {**rows[ranks[-1]], "loss": float(losses[ranks[-1]].mean())}


# --- tasks


def to_learn(task: str, folder: Path | None) -> dict[str, Any]:
    """Return what is to be learned of a task of `benchmarks.quality`, as advice would measure it, and parameters."""
    section = TASKS[task].section(folder)
    config = parse_config(
        {"model": {"name": "minilm"}, "data": section, "adapter": {"rank": 1}, "strategy": {"name": "lora"}}
    )
    trainer = build_trainer(load_inputs(config), NullRecorder(), make_accelerator())
    rows = sampled(len(trainer.tokens), LABELS, 0)
    with trainer.adapters.disabled():
        known = labels_to_learn(trainer.accelerator.unwrap_model(trainer.model), trainer.tokens, rows, trainer.autocast)
    if known is None:
        raise SystemExit(f"{task}: has too few rows")
    examples = len(task_data(TASKS[task], folder, "report").train)
    bits = bits_to_learn(known.nats, known.irreducible, examples)
    one = trainer.adapters.adapter_parameter_count()["active"]
    return {"nats": known.nats, "examples": examples, "bits": bits, "parameters": one}


def kept(task: str, rank: int) -> dict[int, list[float]]:
    """Return the losses of the committed runs of uniform LoRA, by seed."""
    wanted = {"task": task, "rank": rank, "method": "lora", "model": "minilm"}
    runs = [run for run in KeptRuns.of("quality").finished("report") if wanted.items() <= run["job"].items()]
    return {run["job"]["seed"]: [thousandths / 1000 for thousandths in run["loss"]] for run in runs}


def tasks(folder: Path | None) -> Iterator[dict[str, Any]]:
    """Yield a row for each task whose runs at two ranks are committed."""
    for task, (small, large) in QUALITY.items():
        known = to_learn(task, folder)
        losses = [kept(task, rank) for rank in (small, large)]
        common = sorted(losses[0].keys() & losses[1].keys())
        pair = [np.array([side[seed] for seed in common], float) for side in losses]
        yield {
            "name": task,
            "rank": small,
            "larger": large,
            "seeds": len(common),
            "steps": TASKS[task].steps,
            **known,
            **line(known["bits"], small * known["parameters"]),
            **outcome(*pair),
        }


def of_rates() -> Iterator[dict[str, Any]]:
    """Yield a row for each data set and seed whose grid of rates is committed at two ranks: the best of each grid."""
    by_rate: dict[tuple[Any, ...], dict[int, Mapping[str, Any]]] = {}
    for file in sorted(results.RESULTS.glob("rate*.json")):
        figures = json.loads(file.read_text("utf-8"))["figures"]
        of = figures["setting"]
        for name, run in figures["runs"].items():
            if run["answer"].get("capacity") is not None:
                by_rate.setdefault((name, of["method"], of["steps"], of.get("head_lr")), {})[of["rank"]] = run
    for (name, method, steps, _), by_rank in by_rate.items():
        for small, large in pairwise(sorted(by_rank)):
            best = [min(one for one in by_rank[rank]["grid"].values() if one is not None) for rank in (small, large)]
            known = by_rank[small]["answer"]["capacity"]
            yield {
                "name": f"{name}, {method}",
                "rank": small,
                "larger": large,
                "seeds": 1,
                "steps": steps,
                **{key: known[key] for key in ("nats", "examples")},
                **line(known["bits"], known["parameters"]),
                "loss": best[0],
                "gain": [best[0] - best[1], None, None],
                "helps": best[0] - best[1] > LEAST,
            }


def main() -> None:
    """Do one part, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", nargs="?", choices=["facts", "tasks"], default="facts")
    parser.add_argument("--facts", default="40,160,640")
    parser.add_argument("--ranks", default="1,2,4")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--data", type=Path, help="folder of the GLUE tasks, for tasks")
    parser.add_argument("--quick", action="store_true", help="a small form: does it work, nothing more")
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)
    transformers_logging.disable_progress_bar()
    numbers, ranks = ([int(one) for one in text.split(",")] for text in (arguments.facts, arguments.ranks))
    seeds, steps, name = arguments.seeds, arguments.steps, f"rank_capacity-{arguments.part}"
    if arguments.quick:
        numbers, ranks, seeds, steps, name = [48], [1, 2], 1, 100, "rank_capacity-quick"
    rows: list[dict[str, Any]] = []
    parts = facts(numbers, ranks, seeds, steps) if arguments.part == "facts" else [*of_rates(), *tasks(arguments.data)]
    for row in parts:
        rows.append(row)
        print(json.dumps(row), flush=True)
        results.write(name, {"least": LEAST, "rows": rows}, "benchmarks.rank_capacity")


if __name__ == "__main__":
    main()
