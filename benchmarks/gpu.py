"""A training step on a GPU: time, memory, and how often the host waits, on a model of a billion weights.

    python -m benchmarks.gpu [--shape llama-1b] [--seq 512] [--batch-size 8] [--rank 8] [--rounds 40]

One command fills the table of docs/BENCHMARKS.md. Weights are random, since the time of a step does not hang on them,
so nothing is downloaded. Compared are the floor (frozen model, gradients of its inputs alone), PEFT's LoRA, our `lora`
and `dynamic`, in bf16. Each is first taken alone: peak memory of a step, and synchronisations between host and device
(`torch.cuda.set_sync_debug_mode`) over steps that record nothing to disk. Then all take steps in turn, as in
`benchmarks.step_time`. Where there is no GPU it says "not measured"; `--quick` tries the script on a tiny shape.
"""

from __future__ import annotations

import argparse
import gc
import tempfile
import warnings
from pathlib import Path
from typing import Any

import torch

from benchmarks import results
from benchmarks.step_time import WARM_UP, run_setting, show
from benchmarks.step_variants import SHAPES, OurStep, PlainStep, Setting, build, random_model, write_data
from dynlora.training.build import make_accelerator

VARIANTS = ("floor", "peft-lora", "lora", "dynamic")
MIB = 2**20
COUNTED = 10
"""Steps over which synchronisations are counted."""


def waits(step: OurStep | PlainStep, first: int) -> float | None:
    """Return synchronisations between host and device a step; None without a GPU.

    `dynamic` reads importance where it reallocates, and all read the loss where it is recorded, every ten steps.
    """
    if not torch.cuda.is_available():
        return None
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            for number in range(COUNTED):
                step(first + number)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return sum("synchroniz" in str(one.message) for one in warned) / COUNTED


def alone(name: str, setting: Setting) -> dict[str, Any]:
    """Return peak memory in MiB and waits of one variant that has the device for itself."""
    step = build(name, setting, make_accelerator())
    for number in range(WARM_UP):
        step(number)
    has_gpu = torch.cuda.is_available()
    if has_gpu:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    step(WARM_UP)
    peak = torch.cuda.max_memory_allocated() / MIB if has_gpu else None
    costs = {"peak_mib": None if peak is None else round(peak, 1), "waits_per_step": waits(step, WARM_UP + 1)}
    step.close()
    del step
    gc.collect()
    if has_gpu:
        torch.cuda.empty_cache()
    return costs


def device_name() -> str:
    """Return the name of the GPU, and of its driver's CUDA; empty without one."""
    return f"{torch.cuda.get_device_name()}, CUDA {torch.version.cuda}" if torch.cuda.is_available() else ""


def table(kept: dict[str, dict[str, Any]]) -> None:
    """Print memory and waits, as ratios to our `lora` where they were measured."""
    base = kept["lora"]["peak_mib"]
    for name, row in kept.items():
        peak, wait = row["peak_mib"], row["waits_per_step"]
        memory = "not measured" if peak is None else f"{peak:9.1f} MiB ({peak / base:.4f} of lora)"
        print(f"{name:12} peak memory {memory}; host waits a step {'not measured' if wait is None else f'{wait:.2f}'}")


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=sorted(SHAPES), default="llama-1b")
    parser.add_argument("--seq", type=int, default=512, help="tokens a row")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=40, help="steps of every variant that count")
    parser.add_argument("--precision", default="bf16", choices=["bf16", "fp32"])
    parser.add_argument("--quick", action="store_true", help="a tiny shape, also without a GPU: does it work")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.shape, arguments.seq, arguments.batch_size, arguments.rounds = "tiny", 32, 4, 6
    elif not torch.cuda.is_available():
        print("not measured: this machine has no GPU that torch can use; --quick tries the script")
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_data(folder / "data", 2 * arguments.seq)
        setting = Setting(
            model=random_model(arguments.shape, folder / arguments.shape),
            folder=folder,
            precision=arguments.precision,
            length=arguments.seq,
            dropout=True,
            batch_size=arguments.batch_size,
            rank=arguments.rank,
            steps=WARM_UP + COUNTED + arguments.rounds + 2,
        )
        kept = {name: alone(name, setting) for name in VARIANTS}
        timed = run_setting(setting, list(VARIANTS), arguments.rounds, "wall")
    show(timed)
    table(kept)
    figures = {
        "device": device_name() or "not measured: no GPU",
        "shape": arguments.shape,
        "alone": kept,
        "in turn": timed,
    }
    results.write("gpu-quick" if arguments.quick else "gpu", figures, "benchmarks.gpu")


if __name__ == "__main__":
    main()
