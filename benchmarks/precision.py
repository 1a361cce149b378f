"""bf16 against fp32 on this machine: is what `train.precision=auto` chooses the faster one?

python -m benchmarks.precision [--quick] [--models minilm,smollm2-135m] [--seq 32,128] [--rounds 12]

A round takes one step of `lora` in each precision, on the same rows and in turns; ratios are paired within rounds. The
same for an evaluation of 32 held-out rows.
"""

from __future__ import annotations

import argparse
import gc
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator

from benchmarks import results
from benchmarks.step_time import measure, ratio
from benchmarks.step_variants import OurStep, Setting, model_folder, write_data
from dynlora.engine.loop.hardware import resolve_precision
from dynlora.training.build import make_accelerator

PRECISIONS = ("fp32", "bf16")
WARM_UP = 3


def evaluation_ms(sides: dict[str, OurStep], rounds: int) -> dict[str, np.ndarray]:
    """Return the milliseconds of an evaluation of the held-out rows in every round, by precision."""
    times: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(WARM_UP + rounds):
        for name in list(sides)[:: 1 if number % 2 else -1]:
            trainer = sides[name].trainer
            trainer.model.eval()
            start = time.perf_counter()
            trainer.predictions(trainer.evaluation.tokens)
            if number >= WARM_UP:
                times[name].append(1000 * (time.perf_counter() - start))
            trainer.model.train()
    return {name: np.array(values) for name, values in times.items()}


def compared(setting: Setting, rounds: int, accelerator: Accelerator) -> dict[str, Any]:
    """Return the medians and ratios of one model and length."""
    sides = {name: OurStep(replace(setting, precision=name), "lora", accelerator) for name in PRECISIONS}
    try:
        steps, _ = measure(dict(sides), rounds, accelerator.device, time.perf_counter)
        evaluations = evaluation_ms(sides, rounds)
    finally:
        for side in sides.values():
            side.close()
    del sides
    gc.collect()
    return {
        what: {
            "median_ms": {name: float(np.median(values)) for name, values in times.items()},
            "bf16/fp32": ratio(times["bf16"], times["fp32"]),
        }
        for what, times in (("step", steps), ("evaluation", evaluations))
    }


def main() -> None:
    """Time every model and length, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default="minilm,smollm2-135m", help="embedded names or local folders")
    parser.add_argument("--seq", default="32,128", help="tokens a row, separated by commas")
    parser.add_argument("--rounds", type=int, default=12, help="steps of each precision that count")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--quick", action="store_true", help="one model, 32 tokens, few rounds")
    arguments, _ = parser.parse_known_args()
    if arguments.quick:
        arguments.models, arguments.seq, arguments.rounds = "minilm", "32", 6
    accelerator = make_accelerator()
    auto, settings = resolve_precision("auto", accelerator.device), {}
    print(f"train.precision=auto is {auto} on {results.processor()}")
    with tempfile.TemporaryDirectory() as scratch:
        write_data(Path(scratch) / "data")
        for model in arguments.models.split(","):
            for length in map(int, arguments.seq.split(",")):
                setting = Setting(
                    model=model_folder(model),
                    folder=Path(scratch),
                    precision="fp32",
                    length=length,
                    dropout=True,
                    batch_size=arguments.batch_size,
                    rank=8,
                    steps=WARM_UP + arguments.rounds + 1,
                )
                settings[f"{model}, {length} tokens"] = compared(setting, arguments.rounds, accelerator)
                _show(f"{model}, {length} tokens", settings[f"{model}, {length} tokens"])
    figures = {
        "auto": auto,
        "threads": torch.get_num_threads(),
        "batch_size": arguments.batch_size,
        "settings": settings,
    }
    name = "precision-quick" if arguments.quick else "precision"
    print("\nwritten:", results.write(name, figures, "benchmarks.precision"))


def _show(name: str, medians: dict[str, Any]) -> None:
    """Print one setting."""
    for what, row in medians.items():
        times, bf16 = row["median_ms"], row["bf16/fp32"]
        times_text = ", ".join(f"{precision} {value:.0f} ms" for precision, value in times.items())
        print(
            f"{name:28}{what:12} {times_text}; bf16/fp32 {bf16['median']:.2f} ({bf16['low']:.2f} to {bf16['high']:.2f})"
        )


if __name__ == "__main__":
    main()
