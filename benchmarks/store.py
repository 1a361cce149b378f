"""What recording costs a training step, and how long reading a signal takes.

python -m benchmarks.store

Random walks, modules x signals x steps, are recorded one step after the other without a pause; one signal of all
modules is read back. What was read must equal what was written before a time counts. The script at commit 19c3ea93
measures four trackers beside it; `docs/research/cost.md` has the ratios.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import results
from dynlora.store.reader import RunReader
from dynlora.store.rows import ModuleRow
from dynlora.store.writer import RunWriter

SIGNALS = ("importance", "rank", "gate")


def payload(modules: int, steps: int) -> np.ndarray:
    """Return random walks, (steps, signals, modules) float32."""
    draw = np.random.default_rng(0).standard_normal((steps, len(SIGNALS), modules))
    return (1e-2 * draw).cumsum(0).astype(np.float32)


def recorded(folder: Path, values: np.ndarray) -> tuple[Path, list[float], float]:
    """Record a payload in a new run; return its folder, the seconds of each step, and those of all with the closing."""
    run = RunWriter.create(folder, config_yaml="seed: 0\n", meta={"name": "run"}, max_steps=10**6, state="running")
    writer = RunWriter.open(run, resume_from=None)
    writer.define_modules([ModuleRow(f"layer.{n}", None, "linear", 1, 1, 1) for n in range(values.shape[2])])
    for signal in SIGNALS:
        writer.define_signal(signal, "module", "", values.shape[2])
    step_s, begun = [], time.perf_counter()
    for step, vectors in enumerate(values):
        start = time.perf_counter()
        for signal, vector in zip(SIGNALS, vectors, strict=True):
            writer.vector(signal, step, vector)
        writer.progress(step)
        step_s.append(time.perf_counter() - start)
    writer.finish("finished")
    return run, step_s, time.perf_counter() - begun


def read(run: Path, signal: int, values: np.ndarray) -> float:
    """Return the seconds of reading one signal.

    Raises:
        RuntimeError: when it is not what was written.
    """
    start = time.perf_counter()
    with RunReader(run) as reader:
        vectors = reader.signal(SIGNALS[signal])[1]
    seconds = time.perf_counter() - start
    if not np.array_equal(vectors, values[:, signal]):
        raise RuntimeError(f"{SIGNALS[signal]} is read as other values than were written")
    return seconds


def once(values: np.ndarray) -> dict[str, float]:
    """Return the figures of one recording and its readings: microseconds a step, seconds, bytes."""
    with tempfile.TemporaryDirectory() as folder:
        run, step_s, whole_s = recorded(Path(folder), values)
        return {
            "blocked_median_us": 1e6 * statistics.median(step_s),
            "readable_us": 1e6 * whole_s / len(values),
            "read_s": statistics.median(read(run, signal, values) for signal in range(len(SIGNALS))),
            "bytes": sum(path.stat().st_size for path in run.rglob("*") if path.is_file()),
        }


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="once, few steps: does it work, nothing more")
    arguments, _ = parser.parse_known_args()
    sizes, steps, repeats = ((36,), 20, 1) if arguments.quick else ((36, 224), arguments.steps, arguments.repeats)
    figures: dict[str, Any] = {"signals": len(SIGNALS), "load_before": os.getloadavg(), "sizes": {}}
    for modules in sizes:
        rows = [once(payload(modules, steps)) for _ in range(repeats)]
        medians = {key: statistics.median(row[key] for row in rows) for key in rows[0]}
        figures["sizes"][f"{modules} modules"] = {"steps": steps, **medians}
        print(f"{modules} modules: {medians}", flush=True)
    figures["load_after"] = os.getloadavg()
    print("written:", results.write("store-quick" if arguments.quick else "store", figures, "benchmarks.store"))


if __name__ == "__main__":
    main()
