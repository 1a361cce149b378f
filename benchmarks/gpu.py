"""What only a GPU can tell: tests on it, a step's time, memory and waits, quantised weights, and two processes.

    python -m benchmarks.gpu [--shape llama-1b] [--seq 512] [--batch-size 8] [--rank 8] [--rounds 40] [--no-tests]

One command writes `results/gpu.json` and `results/gpu.md`, a table for `docs/research/cost.md`. Weights are random, as
the time of a step does not hang on them, so nothing is downloaded. Compared are the floor (frozen model, gradients of
its inputs alone), PEFT's LoRA, our `lora` and `dynamic`, in bf16; then the last three on weights in 4 and in 8 bits.
Each is first taken alone: peak memory of a step, and synchronisations between host and device
(`torch.cuda.set_sync_debug_mode`) over steps that record nothing to disk. Then all on the same weights take steps in
turn, as in `benchmarks.step_time`. With two devices, a run in two processes takes the same batches as one in one.

Where there is no GPU it says so, writes nothing and exits with 0; `--quick` tries the script on a tiny shape there.
"""

from __future__ import annotations

import argparse
import gc
import importlib.util
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import torch

import dynlora
from benchmarks import results
from benchmarks.step_time import WARM_UP, run_setting, show
from benchmarks.step_variants import SHAPES, OurStep, PlainStep, Setting, build, random_model, write_data
from dynlora.engine.model.base_model import PACKAGE
from dynlora.training.build import make_accelerator

ROOT = Path(__file__).resolve().parents[1]
WHOLE = ("floor", "peft-lora", "lora", "dynamic")
QUANTISED = ("peft-lora", "lora", "dynamic")
KINDS = ("nf4", "int8")
TESTS = ("tests/training/test_device.py", "tests/training/test_at_size.py", "tests/training/test_precision.py")
"""Tests that train where the machine's accelerator is."""
PROCESSES = (1, 2)
MIB = 2**20
COUNTED = 10
"""Steps over which synchronisations are counted."""

NOT_MEASURED = "not measured"


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
    """Return the name of the GPU, and of its driver's CUDA; that there is none without one."""
    if not torch.cuda.is_available():
        return f"{NOT_MEASURED}: no GPU"
    return f"{torch.cuda.get_device_name()}, CUDA {torch.version.cuda}"


def of_weights(setting: Setting, names: Sequence[str], rounds: int) -> dict[str, Any] | str:
    """Return what the variants cost on one kind of weights, alone and in turn, or why that is not measured."""
    if setting.quantization and importlib.util.find_spec(PACKAGE) is None:
        return f"{NOT_MEASURED}: needs {PACKAGE}, pip install 'dynlora[quantization]'"
    return {
        "alone": {name: alone(name, setting) for name in names},
        "in turn": run_setting(setting, list(names), rounds, "wall"),
    }


def tested(selection: Sequence[str]) -> dict[str, int]:
    """Run tests of this checkout on the machine's accelerator, and return how many passed, failed and were skipped."""
    with tempfile.TemporaryDirectory() as scratch:
        report = Path(scratch) / "tests.xml"
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={report}", *selection]
        subprocess.run(command, cwd=ROOT, check=False)
        (suite,) = ElementTree.parse(report).getroot().iter("testsuite")
    count = {name: int(suite.attrib[name]) for name in ("tests", "failures", "errors", "skipped")}
    failed = count["failures"] + count["errors"]
    return {
        "passed": count["tests"] - failed - count["skipped"],
        "failed": failed,
        "skipped": count["skipped"],
    }


def in_processes(setting: Setting, number: int) -> float:
    """Return the median time of a step of `dynamic` in milliseconds, in so many processes that share each batch.

    Raises:
        subprocess.CalledProcessError: where the run failed.
    """
    runs = setting.folder / f"in-{number}"
    runs.mkdir()
    config = runs / "config.yaml"
    config.write_text(setting.config("dynamic").to_yaml(), "utf-8")
    launcher = [sys.executable, "-m", "accelerate.commands.launch", "--num_processes", str(number)]
    launcher += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]
    launcher += ["--multi_gpu"] * (number > 1)
    command = [*launcher, "-m", "dynlora", "train", "--config", str(config), "--runs-dir", str(runs)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    (folder,) = (path.parent for path in runs.glob("*/run.db"))
    median = dynlora.open_run(folder).summary["time"]["step_ms_median"]
    if median is None:
        raise RuntimeError(f"{folder}: the run measured no step")
    return float(median)


def of_processes(setting: Setting) -> dict[str, float] | str:
    """Return the time of a step by the number of processes, or why that is not measured."""
    devices = torch.cuda.device_count()
    if torch.cuda.is_available() and devices < max(PROCESSES):
        return f"{NOT_MEASURED}: one device"
    return {str(number): in_processes(setting, number) for number in PROCESSES}


def table(figures: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines of the Markdown table, and what stands below it."""
    yield f"{figures['device']}; {figures['shape']}, {figures['seq']} tokens, batch size {figures['batch_size']}."
    yield ""
    yield "| frozen weights | variant | step (ms) | time against PEFT LoRA | peak memory (MiB) | host waits a step |"
    yield "|---|---|---|---|---|---|"
    for weights, of in figures["weights"].items():
        if isinstance(of, str):
            yield f"| {weights} | all | {of} | | | |"
            continue
        for name, median in of["in turn"]["median_ms"].items():
            ratio = of["in turn"]["ratios"].get(f"{name}/peft-lora")
            against = f"{ratio['median']:.2f} ({ratio['low']:.2f} to {ratio['high']:.2f})" if ratio else ""
            costs = [of["alone"][name][key] for key in ("peak_mib", "waits_per_step")]
            cells = [NOT_MEASURED if cost is None else f"{cost:g}" for cost in costs]
            yield f"| {weights} | `{name}` | {median:.1f} | {against} | {' | '.join(cells)} |"
    yield ""
    times = figures["processes"]
    words = times if isinstance(times, str) else ", ".join(f"{ms:.1f} ms in {number}" for number, ms in times.items())
    yield f"A step of `dynamic` by processes: {words}."
    count = figures["tests"]
    yield f"Tests: {', '.join(f'{number} {word}' for word, number in count.items()) if count else 'not run'}."


def arguments_of(given: Sequence[str] | None) -> argparse.Namespace:
    """Return what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=sorted(SHAPES), default="llama-1b")
    parser.add_argument("--seq", type=int, default=512, help="tokens a row")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=40, help="steps of every variant that count")
    parser.add_argument("--precision", default="bf16", choices=["bf16", "fp32"])
    parser.add_argument("--no-tests", action="store_true", help="the benchmarks alone")
    parser.add_argument("--quick", action="store_true", help="a tiny shape, also without a GPU, no tests: does it work")
    arguments = parser.parse_args(given)
    if arguments.quick:
        arguments.shape, arguments.seq, arguments.batch_size, arguments.rounds = "tiny", 32, 4, 6
        arguments.no_tests = True
    return arguments


def measured(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return every figure."""
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
        weights = {"whole": of_weights(setting, WHOLE, arguments.rounds)}
        for kind in KINDS:
            weights[kind] = of_weights(replace(setting, quantization=kind), QUANTISED, arguments.rounds)
        processes = of_processes(setting)
    return {
        "device": device_name(),
        **{name: getattr(arguments, name) for name in ("shape", "seq", "batch_size", "rank", "precision")},
        "weights": weights,
        "processes": processes,
        "tests": None if arguments.no_tests else tested(TESTS),
    }


def main(given: Sequence[str] | None = None) -> int:
    """Measure, print, write; return 1 where a test failed."""
    arguments = arguments_of(given)
    if not arguments.quick and not torch.cuda.is_available():
        print("not measured: this machine has no GPU that torch can use; --quick tries the script")
        return 0
    figures = measured(arguments)
    for of in figures["weights"].values():
        if not isinstance(of, str):
            show(of["in turn"])
    lines = "\n".join(table(figures)) + "\n"
    print("\n" + lines)
    path = results.write("gpu-quick" if arguments.quick else "gpu", figures, "benchmarks.gpu")
    path.with_suffix(".md").write_text(lines, "utf-8")
    print("written:", path, "and", path.with_suffix(".md").name)
    return int(bool(figures["tests"] and figures["tests"]["failed"]))


if __name__ == "__main__":
    sys.exit(main())
