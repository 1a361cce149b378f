"""Time of one training step against PEFT and against the floor, all variants interleaved in one process.

python -m benchmarks.step_time [--quick] [--model minilm] [--seq 32,64,128] [--precisions fp32,bf16]

A round takes one step of every variant on the same batch, in an order that rotates from round to round; ratios are
paired within rounds, so what else the machine does falls on all of them alike. `floor` is the frozen model with
gradients of its inputs alone, the head trained: what any adapter on every module must at least do. Ours are timed as
a run takes its steps: batch, forward, backward, optimizer, scoring, gates, edits, and recording into a run store.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import results
from benchmarks.step_variants import (
    SHAPES,
    VARIANTS,
    OurStep,
    PlainStep,
    Setting,
    build,
    model_folder,
    random_model,
    write_data,
)
from dynlora.analysis.stats import percentile_interval
from dynlora.training.build import make_accelerator

CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
"""What a step is timed by; cpu, with one thread, is for a machine that does other work beside."""

GOALS = {("dynamic", "peft-lora"): 0.95, ("dynamic", "floor"): 1.20}
WARM_UP = 3


def measure(
    variants: dict[str, OurStep | PlainStep], rounds: int, device: torch.device, clock: Callable[[], float]
) -> dict[str, np.ndarray]:
    """Return the milliseconds of every variant's step in every round."""
    names = list(variants)
    times: dict[str, list[float]] = {name: [] for name in names}
    for number in range(WARM_UP + rounds):
        turn = number % len(names)
        for name in (*names[turn:], *names[:turn]):
            _wait(device)
            start = clock()
            variants[name](number)
            _wait(device)
            if number >= WARM_UP:
                times[name].append(1000 * (clock() - start))
    return {name: np.array(values) for name, values in times.items()}


def _wait(device: torch.device) -> None:
    """Wait for an accelerator, so that its work is timed and not its queue."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def ratio(ours: np.ndarray, reference: np.ndarray, seed: int = 0) -> dict[str, float]:
    """Return the median of the paired ratios, its 95 % bootstrap interval, and the ratio of the sums."""
    paired = ours / reference
    draws = np.random.default_rng(seed).integers(0, len(paired), (2000, len(paired)))
    low, high = percentile_interval(np.median(paired[draws], axis=1))
    return {
        "median": float(np.median(paired)),
        "low": low,
        "high": high,
        "of_sums": float(ours.sum() / reference.sum()),
    }


def figures_of(setting: Setting, times: dict[str, np.ndarray]) -> dict[str, Any]:
    """Return what is kept of one setting; the rounds are the steps of a whole run, its wide start among them."""
    references = [name for name in ("peft-lora", "floor", "lora") if name in times]
    return {
        "precision": setting.precision,
        "length": setting.length,
        "dropout": setting.dropout,
        "median_ms": {name: float(np.median(values)) for name, values in times.items()},
        "ratios": {
            f"{name}/{reference}": ratio(values, times[reference])
            for name, values in times.items()
            for reference in references
            if name != reference
        },
    }


def show(row: dict[str, Any]) -> None:
    """Print one setting's table, the goals beside it."""
    dropout = "default dropouts" if row["dropout"] else "no dropout"
    print(f"\n{row['precision']}, {row['length']} tokens, {dropout}")
    print(f"{'variant':14}{'median':>10}   {'against peft-lora':24}{'against floor':24}")
    for name, median in row["median_ms"].items():
        cells = [_cell(row["ratios"].get(f"{name}/{reference}")) for reference in ("peft-lora", "floor")]
        print(f"{name:14}{median:>7.1f} ms   {cells[0]:24}{cells[1]:24}")
    for (name, reference), goal in GOALS.items():
        got = row["ratios"].get(f"{name}/{reference}")
        if got is not None:
            print(f"goal {name}/{reference} <= {goal:.2f}: {'met' if got['median'] <= goal else 'missed'}")
    if "dynamic/lora" in row["ratios"]:
        whole = row["ratios"]["dynamic/lora"]
        print(f"dynamic/lora {_cell(whole)}; over the run {whole['of_sums']:.3f}")


def _cell(value: dict[str, float] | None) -> str:
    """Return a ratio with its interval."""
    return "" if value is None else f"{value['median']:.3f} ({value['low']:.3f} to {value['high']:.3f})"


def run_setting(setting: Setting, names: list[str], rounds: int, clock: str) -> dict[str, Any]:
    """Build the variants of one setting, time them and return the figures."""
    accelerator = make_accelerator()
    variants = {name: build(name, setting, accelerator) for name in names}
    try:
        times = measure(variants, rounds, accelerator.device, CLOCKS[clock])
    finally:
        for variant in variants.values():
            variant.close()
    del variants
    gc.collect()
    return figures_of(setting, times)


def arguments_of() -> argparse.Namespace:
    """Return what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="minilm", help="embedded name or local folder")
    parser.add_argument("--random-config", choices=sorted(SHAPES), help="random weights of this shape, not --model")
    parser.add_argument("--seq", default="32,64,128", help="tokens a row, separated by commas; at most 128")
    parser.add_argument("--precisions", default="fp32,bf16")
    parser.add_argument("--dropouts", default="default,none", help="default, none or both")
    parser.add_argument("--variants", default=",".join(VARIANTS))
    parser.add_argument("--rounds", type=int, default=40, help="steps of every variant that count")
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--clock", default="wall", choices=sorted(CLOCKS), help="cpu: see the source")
    parser.add_argument("--quick", action="store_true", help="32 tokens, few rounds: does it work, nothing more")
    parser.add_argument("--out", help="name of the file below results/; step_time")
    return parser.parse_args()


def main() -> None:
    """Time every setting, print the tables, write the figures."""
    arguments = arguments_of()
    if arguments.quick:
        arguments.seq, arguments.rounds, arguments.dropouts = "32", min(arguments.rounds, 10), "default"
    torch.set_num_threads(arguments.threads)
    figures = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_data(folder / "data")
        shape = arguments.random_config
        model = random_model(shape, folder / shape) if shape else model_folder(arguments.model)
        lists = [arguments.precisions.split(","), arguments.seq.split(","), arguments.dropouts.split(",")]
        for precision, length, dropout in itertools.product(*lists):
            setting = Setting(
                model=model,
                folder=folder,
                precision=precision,
                length=int(length),
                dropout=dropout == "default",
                batch_size=arguments.batch_size,
                rank=arguments.rank,
                steps=WARM_UP + arguments.rounds + 1,
            )
            row = run_setting(setting, arguments.variants.split(","), arguments.rounds, arguments.clock)
            show(row)
            figures.append(row)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    name = arguments.out or ("step_time-quick" if arguments.quick else "step_time")
    summary = {
        "model": shape or arguments.model,
        "rank": arguments.rank,
        "batch_size": arguments.batch_size,
        "rounds": arguments.rounds,
        "threads": arguments.threads,
        "clock": arguments.clock,
        "device": torch.cuda.get_device_name() if device == "cuda" else device,
        "goals": {f"{name}/{reference}": goal for (name, reference), goal in GOALS.items()},
        "settings": figures,
    }
    print("\nwritten:", results.write(name, summary, "benchmarks.step_time"))


if __name__ == "__main__":
    main()
