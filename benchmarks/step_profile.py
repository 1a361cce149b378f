"""Where a step's time goes beyond the lower bound: operators of the floor, `lora` and `dynamic`, by kind.

    python -m benchmarks.step_profile [--model minilm] [--seq 32,64] [--precisions fp32,bf16] [--rounds 10]

Each variant takes its steps on the same batches under the profiler, one after the other. An operator's own time counts,
without those that it calls. `between operators` is the rest of the step by the clock: Python, autograd's bookkeeping,
and the profiler's own cost, which makes all steps longer; shares are to be compared, not milliseconds.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks import results
from benchmarks.step_variants import OurStep, PlainStep, Setting, build, model_folder, write_data
from dynlora.training.build import make_accelerator

MODULE = "benchmarks.step_profile"
VARIANTS = ("floor", "lora", "dynamic")
BETWEEN = "between operators"
WARM_UP = 3

KINDS: Mapping[str, tuple[str, ...]] = {
    "matrix products": ("mm", "bmm", "linear", "matmul", "mkldnn"),
    "attention": ("attention", "softmax"),
    "random numbers": ("dropout", "bernoulli", "random", "uniform", "rand"),
    "optimizer": ("adam", "foreach", "lerp", "addcdiv", "addcmul"),
    "copies and casts": ("copy", "clone", "contiguous", "cat", "stack", "zero", "fill", "empty"),
    "activations and norms": ("gelu", "norm", "tanh"),
    "sums, products and indices": ("add", "mul", "sub", "div", "sum", "mean", "index", "gather", "where", "embedding"),
}
"""Kinds of operators, by parts of their names; the first that fits counts."""


def kind_of(name: str) -> str:
    """Return the kind of an operator."""
    return next((kind for kind, parts in KINDS.items() if any(part in name for part in parts)), "other operators")


def profiled(variant: OurStep | PlainStep, first: int, rounds: int) -> dict[str, float]:
    """Return the milliseconds of a step by kind of operator, and `BETWEEN`."""
    times: dict[str, float] = defaultdict(float)
    with profile(activities=[ProfilerActivity.CPU]) as taken:
        begun = time.perf_counter()
        for number in range(first, first + rounds):
            variant(number)
        whole = 1000 * (time.perf_counter() - begun) / rounds
    for row in taken.key_averages():
        if row.key.startswith("aten::") or "Backward" in row.key or "Optimizer" in row.key:
            times[kind_of(row.key.lower())] += row.self_cpu_time_total / 1000 / rounds
    times[BETWEEN] = max(0.0, whole - sum(times.values()))
    return dict(times)


def measured(setting: Setting, rounds: int) -> dict[str, dict[str, float]]:
    """Return the milliseconds of each variant's step by kind."""
    accelerator = make_accelerator()
    variants = {name: build(name, setting, accelerator) for name in VARIANTS}
    try:
        for number in range(WARM_UP):
            for variant in variants.values():
                variant(number)
        return {name: profiled(variant, WARM_UP, rounds) for name, variant in variants.items()}
    finally:
        for variant in variants.values():
            variant.close()


def show(times: Mapping[str, Mapping[str, float]], title: str) -> None:
    """Print what each variant takes, and what is beyond the floor."""
    print(f"\n{title}: ms of a step under the profiler\n{'':30}" + "".join(f"{name:>10}" for name in times))
    kinds = sorted({kind for row in times.values() for kind in row}, key=lambda kind: -times["lora"].get(kind, 0.0))
    for kind in kinds:
        print(f"  {kind:28}" + "".join(f"{row.get(kind, 0.0):10.1f}" for row in times.values()))
    print(f"  {'in all':28}" + "".join(f"{sum(row.values()):10.1f}" for row in times.values()))


def main() -> None:
    """Profile, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="minilm")
    parser.add_argument("--seq", default="32,64")
    parser.add_argument("--precisions", default="fp32,bf16")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--quick", action="store_true", help="one setting, few steps: does it work, nothing more")
    arguments, _ = parser.parse_known_args()
    lengths, precisions = arguments.seq.split(","), arguments.precisions.split(",")
    rounds = 2 if arguments.quick else arguments.rounds
    figures: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as scratch:
        write_data(Path(scratch) / "data")
        for precision in precisions[:1] if arguments.quick else precisions:
            for length in lengths[:1] if arguments.quick else lengths:
                setting = Setting(
                    model=model_folder(arguments.model),
                    folder=Path(scratch),
                    precision=precision,
                    length=int(length),
                    dropout=True,
                    batch_size=32,
                    rank=8,
                    steps=WARM_UP + rounds + 1,
                )
                times = measured(setting, rounds)
                show(times, f"{precision}, {length} tokens, {torch.get_num_threads()} threads")
                figures.append({"precision": precision, "length": int(length), "ms": times})
    print(
        "written:",
        results.write("step-profile-quick" if arguments.quick else "step-profile", {"settings": figures}, MODULE),
    )


if __name__ == "__main__":
    main()
