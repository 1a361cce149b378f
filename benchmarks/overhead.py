"""What `dynamic` costs beside plain `lora` at an equal budget: parameters, operations, memory and time, each apart.

python -m benchmarks.overhead

Time is told in two ways: by attribution (seconds inside scoring, allocating, gating and recording, over
real steps), and by the ratio of the steps that the variants take in turn, two at a time, in one process, on the same
batches, there and back (A B C C B A ...): of their means over a whole schedule, with a 95 % bootstrap interval, and of
their medians. The first can tell a thousandth, the
second seldom can: where its interval is wider than the goal, that is said. Runs record into a store as every run does.
"""

from __future__ import annotations

import argparse
import logging
import os
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from transformers import AutoTokenizer, BertConfig, BertModel
from transformers.utils import logging as transformers_logging

from benchmarks import costs, results
from benchmarks.attribution import Racer, build_trainer_of, effects_s, importance_s
from dynlora import assets
from dynlora.analysis.stats import percentile_interval
from dynlora.engine.data.batches import BatchOrder
from dynlora.errors import ConfigError

GOAL = 1.001
"""Greatest ratio of `dynamic` to `lora`, for each of the four."""

STEPS, EVALUATIONS = 400, 5
"""Steps and evaluations of a run at defaults."""

OF_INPUTS = {"effects": ("effect of each module on the probe set", 0.01), "importance": ("its importance there", 0.03)}
"""What is measured of input groups, and the greatest part of the steps' time that it may add."""


class Variant(NamedTuple):
    """What is trained: a strategy with its settings, and whose room to grow its adapters get."""

    name: str
    strategy: dict[str, Any]
    room_of: str | None = None


VARIANTS = (
    Variant("dynamic", {"name": "dynamic"}),
    Variant("gates off", {"name": "dynamic", "gates": "off"}),
    Variant("scoring only", {"name": "dynamic", "gates": "off", "allocation": "none"}),
    Variant("lora, room to grow", {"name": "lora"}, "dynamic"),
    Variant("lora", {"name": "lora"}),
)


class Size(NamedTuple):
    """How much is measured."""

    blocks: int
    block: int
    batch: int
    rows: int


FULL, QUICK = Size(100, 2, 32, 15_000), Size(4, 2, 8, 400)


def settings(variant: Variant, model: str, rank: int, steps: int, size: Size) -> dict[str, Any]:
    """Return the config of a variant whose evaluations and checkpoints lie outside of what is timed."""
    return {
        "strategy": variant.strategy,
        "model": {"name": model},
        "adapter": {"rank": rank},
        "data": {"max_train": size.rows, "max_eval": 64},
        "train": {"steps": steps, "batch_size": size.batch},
        "log": {"eval_every": steps, "checkpoint_every": steps},
    }


def tiny_bert(folder: Path, layers: int, hidden: int) -> str:
    """Write a random BERT of that size with the tokenizer of `minilm` and return its folder."""
    tokenizer = AutoTokenizer.from_pretrained(assets.resolve_model("minilm"), local_files_only=True)
    config = BertConfig(
        vocab_size=len(tokenizer),
        num_hidden_layers=layers,
        hidden_size=hidden,
        intermediate_size=4 * hidden,
        num_attention_heads=hidden // 32,
        pad_token_id=0,
    )
    BertModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def step_costs(variant: Variant, values: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Return parameters, operations and memory of a step of a variant on the run's first batches."""
    trainer = build_trainer_of(values, folder, room_of=variant.room_of)
    order = BatchOrder(trainer.tokens.length, trainer.config.train.batch_size, trainer.config.seed)
    parameters = trainer.adapters.adapter_parameter_count()
    found = {"parameters": parameters, "memory_mib": costs.memory(trainer, order), "flops": costs.flops(trainer, order)}
    trainer.recorder.finish("stopped")  # pyright: ignore
    return found


def race(racers: Mapping[str, Racer], size: Size) -> None:
    """Let the variants take blocks of steps in turn, every second time in reverse order; the first is dropped."""
    for racer in racers.values():
        racer.block(2)
        racer.block_s.clear()
        racer.parts.clear()
    for number in range(size.blocks):
        for racer in list(racers.values())[:: -1 if number % 2 else 1]:
            racer.block(size.block)


def ratio(ours: Sequence[float], base: Sequence[float]) -> dict[str, Any]:
    """Return the ratio of the means of paired blocks, its 95 % interval over resampled pairs, and that of medians."""
    a, b = np.array(ours), np.array(base)
    rows = np.random.default_rng(0).integers(0, len(a), (5_000, len(a)))
    low, high = percentile_interval(a[rows].mean(1) / b[rows].mean(1))
    middle = float(np.median(a) / np.median(b))
    return {"ratio": float(a.mean() / b.mean()), "interval": [low, high], "median": middle}


def verdict(value: float, interval: Sequence[float] | None = None) -> str:
    """Say whether a ratio meets the goal, or that the noise is wider than the question."""
    if interval is not None and interval[0] == interval[1]:
        return "no interval of one block"
    if interval is not None and interval[0] <= GOAL < interval[1]:
        return "cannot be told, noise is wider"
    return "met" if value <= GOAL else "MISSED"


def compare(model: str, rank: int, size: Size, folder: Path) -> dict[str, Any]:
    """Measure all variants on one model and print the four tables."""
    steps = size.blocks * size.block + 8
    values = {v.name: settings(v, model, rank, steps, size) for v in VARIANTS}
    found: dict[str, Any] = {}
    with ExitStack() as stack:
        racers: dict[str, Racer] = {}
        for variant in VARIANTS:
            try:
                found[variant.name] = step_costs(variant, values[variant.name], folder)
                racer = Racer(values[variant.name], folder, room_of=variant.room_of)
            except ConfigError as error:
                print(f"{variant.name}: {error}")
                continue
            stack.callback(racer.close)
            racers[variant.name] = racer
        race(racers, size)
        for name, racer in racers.items():
            step_s = statistics.mean(racer.block_s)
            found[name] |= {"step_s": step_s, "shares": racer.shares(), "parameters_most": racer.used}
            found[name]["time"] = ratio(racer.block_s, racers["lora"].block_s)
            found[name]["effects"] = EVALUATIONS * effects_s(racer.trainer) / (STEPS * step_s)
            found[name]["importance"] = importance_s(racer.trainer) / (STEPS * step_s)
    show_costs(found)
    show_time(found)
    for key, (what, goal) in OF_INPUTS.items():
        print(f"\n{what}, of the time of a run's steps (goal {goal})")
        for name, row in found.items():
            print(f"  {name:20} {row[key]:.5f} {'met' if row[key] <= goal else 'MISSED'}")
    return found


def show_costs(found: Mapping[str, Any]) -> None:
    """Print parameters, operations and memory beside those of plain LoRA."""
    base = found["lora"]
    print(f"\nparameters, adapters and gates (goal {GOAL}, and never over the budget)")
    budget = base["parameters"]["budget"]
    for name, row in found.items():
        most = row["parameters_most"]
        share = most / base["parameters_most"]
        allocated = row["parameters"]["allocated"]
        print(f"  {name:20} {most:12,} of {budget:,}  {share:.5f} {verdict(share):6}  allocated {allocated:,}")
    print(f"\noperations of a step, 10^9: by formula, and matrix products as torch counts them (goal {GOAL})")
    for name, row in found.items():
        flops = row["flops"]
        formula, counted = (flops[key] / base["flops"][key] for key in ("formula", "counted"))
        print(
            f"  {name:20} {flops['formula'] / 1e9:10.3f}  {formula:.5f} {verdict(formula):6}  "
            f"counted {flops['counted'] / 1e9:10.3f}  {counted:.5f}, of it by formula "
            f"{flops['to_be_counted'] / flops['counted']:.5f}"
        )
    print(f"\nmemory at the peak of a step, MiB (goal {GOAL})")
    for name, row in found.items():
        memory = row["memory_mib"]
        share = memory["total"] / base["memory_mib"]["total"]
        print(f"  {name:20} {memory['total']:10.2f}  {share:.5f} {verdict(share)}")


def show_time(found: Mapping[str, Any]) -> None:
    """Print the two views of time."""
    print(f"\ntime of a step: shares by attribution (goal of the dynamics {GOAL - 1:.3f}), and blocks in turn / lora")
    for name, row in found.items():
        shares = row["shares"]
        listed = "  ".join(f"{part} {100 * share:.3f} %" for part, share in shares.items())
        total = dynamics(shares)
        low, high = row["time"]["interval"]
        print(f"  {name:20} {1000 * row['step_s']:8.1f} ms  {listed}")
        if name == "lora":
            continue
        print(
            f"  {'':20} dynamics {100 * total:.3f} % {verdict(1 + total)};  in turn "
            f"{row['time']['ratio']:.4f} [{low:.4f}, {high:.4f}] {verdict(row['time']['ratio'], (low, high))}, "
            f"medians {row['time']['median']:.4f}"
        )


def dynamics(shares: Mapping[str, float]) -> float:
    """Return the share of what only `dynamic` does; recording is a part of every run."""
    return sum(share for part, share in shares.items() if part != "recording")


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="minilm")
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--blocks", type=int, default=FULL.blocks, help="of each variant")
    parser.add_argument("--block", type=int, default=FULL.block, help="steps of a block")
    parser.add_argument("--quick", action="store_true", help="a tiny model, few steps: does it work, nothing more")
    arguments, _ = parser.parse_known_args()
    logging.disable(logging.WARNING)
    transformers_logging.disable_progress_bar()
    size = QUICK if arguments.quick else FULL._replace(blocks=arguments.blocks, block=arguments.block)
    figures: dict[str, Any] = {"goal": GOAL, "size": size._asdict(), "load_before": os.getloadavg()}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        model = tiny_bert(folder / "quick", 2, 64) if arguments.quick else arguments.model
        figures["variants"] = compare(model, arguments.rank, size, folder / "runs")
    figures["load_after"] = os.getloadavg()
    name = "overhead-quick" if arguments.quick else "overhead"
    print("written:", results.write(name, figures, "benchmarks.overhead"))


if __name__ == "__main__":
    main()
