"""A training step alone and beside another torch process on the same cores, for each way that waiting threads behave.

Started by `benchmarks.waits`; alone:

python -m benchmarks.beside [--quick] [--settings 10000,passive] [--steps 40] [--rounds 3]

The setting is read once, when torch is imported, so each reading is made in a process of its own. Settings take turns,
so that what else the machine does falls on all of them alike.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from benchmarks import results

SETTINGS: Mapping[str, Mapping[str, str]] = {
    "libgomp's own (300000)": {"GOMP_SPINCOUNT": "300000"},
    "100000": {"GOMP_SPINCOUNT": "100000"},
    "30000": {"GOMP_SPINCOUNT": "30000"},
    "10000": {"GOMP_SPINCOUNT": "10000"},
    "3000": {"GOMP_SPINCOUNT": "3000"},
    "1000": {"GOMP_SPINCOUNT": "1000"},
    "100": {"GOMP_SPINCOUNT": "100"},
    "passive": {"OMP_WAIT_POLICY": "PASSIVE"},
}
"""Variables of the environment by the name of the setting; the first is what torch does without one of them."""

WARM_UP = 5
READY = "ready"


def step_seconds(strategy: str) -> Iterator[float]:
    """Yield the seconds of one training step after another of a run at defaults."""
    from dynlora.config import parse_config
    from dynlora.engine.recorder import NullRecorder
    from dynlora.training.build import build_trainer, make_accelerator
    from dynlora.training.inputs import load_inputs

    config = parse_config({"strategy": {"name": strategy}, "train": {"steps": 100_000}})
    trainer = build_trainer(load_inputs(config), NullRecorder(), make_accelerator())
    order, signals = trainer.begin()
    trainer.model.train()
    while True:
        start = time.perf_counter()
        trainer.take_step(order, signals)
        yield time.perf_counter() - start


def child(steps: int | None) -> None:
    """Take so many steps after a few to warm up and print their seconds; without a number take steps until ended."""
    taken = step_seconds("lora")
    for _ in range(WARM_UP):
        next(taken)
    print(READY, flush=True)
    if steps is not None:
        print(json.dumps([next(taken) for _ in range(steps)]))
        return
    for _ in taken:
        pass


def environment(setting: Mapping[str, str]) -> dict[str, str]:
    """Return this process's environment with one setting of waiting threads and no other."""
    kept = {name: value for name, value in os.environ.items() if name not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    return {**kept, **setting}


def command(steps: int | None) -> list[str]:
    """Return the command of a process that takes steps."""
    return [sys.executable, "-m", "benchmarks.beside", "--child", *([] if steps is None else [str(steps)])]


@contextmanager
def another(setting: Mapping[str, str]) -> Iterator[None]:
    """Let another process of the same setting train inside the block."""
    with subprocess.Popen(command(None), env=environment(setting), stdout=subprocess.PIPE, text=True) as other:
        try:
            if other.stdout is None or other.stdout.readline().strip() != READY:
                raise RuntimeError("the other process ended")
            yield
        finally:
            other.kill()


def reading(setting: Mapping[str, str], steps: int) -> float:
    """Return the median seconds of a step in a process of its own."""
    done = subprocess.run(command(steps), env=environment(setting), capture_output=True, text=True, check=True)
    return statistics.median(json.loads(done.stdout.splitlines()[-1]))


def measure(steps: int, rounds: int, names: list[str]) -> dict[str, dict[str, Any]]:
    """Return the median seconds of a step by setting: alone, beside another process, and every reading."""
    readings: dict[str, dict[str, Any]] = {name: {"alone": [], "beside": []} for name in names}
    for number in range(rounds):
        turn = number % len(names)
        for name in (*names[turn:], *names[:turn]):
            setting = SETTINGS[name]
            readings[name]["alone"].append(reading(setting, steps))
            with another(setting):
                readings[name]["beside"].append(reading(setting, steps))
    return {
        name: {"alone_s": statistics.median(row["alone"]), "beside_s": statistics.median(row["beside"]), **row}
        for name, row in readings.items()
    }


def show(figures: Mapping[str, Mapping[str, Any]]) -> None:
    """Print the settings: seconds alone and beside, and alone over what torch does without a setting."""
    first = next(iter(figures.values()))["alone_s"]
    print("\nA training step (lora, defaults): seconds, median")
    print(f"  {'GOMP_SPINCOUNT':26} {'alone':>8} {'beside':>8} {'alone over the first':>22}")
    for name, row in figures.items():
        print(f"  {name:26} {row['alone_s']:8.3f} {row['beside_s']:8.3f} {row['alone_s'] / first:22.3f}")


def main() -> None:
    """Measure and print, or be one of the processes that are measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two settings, a few steps: does it work")
    parser.add_argument("--settings", default="", help="compared with the first, separated by commas; default: all")
    parser.add_argument("--steps", type=int, default=None, help="of a reading; default 40, quick 5")
    parser.add_argument("--rounds", type=int, default=None, help="readings of each setting; default 3, quick 1")
    parser.add_argument("--child", nargs="?", type=int, const=-1, default=None, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child is not None:
        child(None if arguments.child < 0 else arguments.child)
        return
    today, *others = SETTINGS
    settings = [name for name in arguments.settings.split(",") if name] or (["10000"] if arguments.quick else others)
    if unknown := set(settings) - set(others):
        parser.error(f"--settings {', '.join(sorted(unknown))}: none of them; choose from {', '.join(others)}")
    steps = arguments.steps or (5 if arguments.quick else 40)
    rounds = arguments.rounds or (1 if arguments.quick else 3)
    load_before = os.getloadavg()
    spin_counts = measure(steps, rounds, [today, *settings])
    show(spin_counts)
    figures = {"steps": steps, "rounds": rounds, "load": [load_before, os.getloadavg()], "spin_counts": spin_counts}
    print("written:", results.write("beside-quick" if arguments.quick else "beside", figures, "benchmarks.beside"))


if __name__ == "__main__":
    main()
