"""What recording costs a training step and how long reading takes: our run store against four trackers.

python -m benchmarks.store

Every tracker records the same random walks, modules x signals x steps, as its users would, one step after the other
without a pause, in a process of its own; another process reads one signal of all modules back. What was read must equal
what was written, within float32, before a time counts. A tracker is taken from this environment, else from the one that
`--python` names (`make bench-trackers` makes it); one that is in neither is a row "not installed". Nothing leaves the
machine: reports to the makers are off, no server runs.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import results
from benchmarks.trackers import SIGNALS, TRACKERS

ROOT = Path(__file__).resolve().parents[1]
OTHERS = ROOT / ".venv-trackers" / "bin" / "python"
GOALS = {"write": 8.0, "read": 100.0}
"""How many times quicker than each tracker the store shall be."""

SLOW = {("mlflow", 224): 100, ("aim", 224): 100}
"""Steps, at most, of trackers that would take many minutes; each is compared with our store on as many steps."""

LIMIT_S = 900
QUIET = {
    "DO_NOT_TRACK": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_OFFLINE": "1",
    "GIT_PYTHON_REFRESH": "quiet",
}
"""Environment of every child: nothing is reported, nothing is asked of a hub. Aim has sent nothing since 3.29."""


def payload(modules: int, steps: int) -> np.ndarray:
    """Return random walks, (steps, signals, modules) float32."""
    draw = np.random.default_rng(0).standard_normal((steps, len(SIGNALS), modules))
    return (1e-2 * draw).cumsum(0).astype(np.float32)


def interpreter(name: str, others: Path) -> Path | None:
    """Return the Python whose environment holds a tracker, this one first, or None."""
    needs = TRACKERS[name].needs
    probe = f"import sys; from importlib.util import find_spec; sys.exit(None in map(find_spec, {needs!r}))"
    for python in (Path(sys.executable), others):
        if python.exists() and subprocess.run([python, "-c", probe], check=False, cwd=ROOT).returncode == 0:
            return python
    return None


class Child:
    """Runs one tracker in processes of its own, below a folder of its own."""

    def __init__(self, name: str, python: Path, folder: Path) -> None:
        """Make the folder."""
        self.name, self.python, self.folder = name, python, folder
        self.data = folder / "data"
        self.data.mkdir(parents=True)

    def write(self, file: Path) -> dict[str, Any]:
        """Record a payload and return what it took; see `trackers.write`."""
        return self._run("write", str(file))

    def read(self, signal: int, values: np.ndarray) -> dict[str, Any]:
        """Read one signal back and return what it took.

        Raises:
            RuntimeError: when it is not what was written.
        """
        reading = self._run("read", SIGNALS[signal], str(values.shape[2]))
        if not np.array_equal(np.load(self.folder / "result.npy", allow_pickle=False), values[:, signal]):
            raise RuntimeError(f"{self.name} gave other values of {SIGNALS[signal]} back than it was given")
        return reading

    def _run(self, act: str, *arguments: str) -> dict[str, Any]:
        result = self.folder / "result.json"
        command = [self.python, "-m", "benchmarks.trackers", act, self.name, self.data, *arguments, result]
        places = {"HOME": str(self.folder), "TRACKIO_DIR": str(self.data), "PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            command,
            cwd=self.folder,
            env={**os.environ, **QUIET, **places},
            capture_output=True,
            text=True,
            check=False,
            timeout=LIMIT_S,
        )
        if done.returncode:
            raise RuntimeError((done.stderr.strip().splitlines() or [f"it ended with status {done.returncode}"])[-1])
        return json.loads(result.read_text("utf-8"))


def figures_of(written: dict[str, Any], reads: list[dict[str, Any]]) -> dict[str, float]:
    """Return the figures of one recording and its readings: microseconds a step, medians of seconds, bytes in all."""
    steps = written["step_s"]
    return {
        "blocked_median_us": 1e6 * statistics.median(steps),
        "blocked_mean_us": 1e6 * statistics.mean(steps),
        "readable_us": 1e6 * (sum(steps) + written["close_s"]) / len(steps),
        "read_s": statistics.median(read["read_s"] for read in reads),
        "bytes": written["bytes"],
        "start_s": written["start_s"],
        "import_s": statistics.median(read["import_s"] for read in reads),
    }


def once(name: str, python: Path, values: np.ndarray, signals: Sequence[int]) -> tuple[dict[str, float], str]:
    """Record in a fresh folder, read each signal in a process of its own; return figures and the tracker's version."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "payload.npy"
        np.save(file, values, allow_pickle=False)
        child = Child(name, python, Path(folder) / "child")
        written = child.write(file)
        return figures_of(written, [child.read(signal, values) for signal in signals]), written["version"]


def compare(name: str, python: Path, values: np.ndarray, repeats: int) -> dict[str, Any]:
    """Return the medians of a tracker and of our store beside it, taken in turn, and the medians of their ratios."""
    ours, theirs, version = [], [], ""
    signals = range(len(SIGNALS) if repeats > 1 else 1)
    for _ in range(repeats):
        ours.append(once("dynlora", Path(sys.executable), values, signals)[0])
        measurement, version = once(name, python, values, signals)
        theirs.append(measurement)
    ratios = {key: [b[key] / a[key] for a, b in zip(ours, theirs, strict=True)] for key in ours[0]}
    return {
        "steps": len(values),
        "version": version,
        "theirs": {key: statistics.median(row[key] for row in theirs) for key in ours[0]},
        "ours": {key: statistics.median(row[key] for row in ours) for key in ours[0]},
        "ratio": {key: statistics.median(ratios[key]) for key in ("blocked_mean_us", "readable_us", "read_s", "bytes")},
        "ratios": ratios,
    }


def row(name: str, measurement: dict[str, Any], side: str) -> str:
    """Return a line of the table."""
    figure = measurement[side]
    line = (
        f"  {name:24} {measurement['steps']:5} {figure['blocked_median_us']:10,.0f} {figure['blocked_mean_us']:10,.0f} "
        f"{figure['readable_us']:10,.0f} {1000 * figure['read_s']:10,.1f} {figure['bytes'] / 2**20:8.2f}"
    )
    if side == "ours":
        return line
    ratio = measurement["ratio"]
    write = min(ratio["blocked_mean_us"], ratio["readable_us"])
    verdicts = ["met" if write >= GOALS["write"] else "MISSED", "met" if ratio["read_s"] >= GOALS["read"] else "MISSED"]
    return (
        f"{line}   {ratio['blocked_mean_us']:6.1f} {ratio['readable_us']:6.1f} {verdicts[0]:6} "
        f"{ratio['read_s']:7.1f} {verdicts[1]}"
    )


def measure(modules: int, steps: int, repeats: int, others: Path) -> dict[str, Any]:
    """Measure all trackers at one size, printing a line as soon as there is one."""
    print(f"\n{modules} modules x {len(SIGNALS)} signals, {repeats} repeats: microseconds a step, milliseconds, MiB")
    print(
        f"  {'':24} {'steps':>5} {'blocks':>10} {'mean':>10} {'readable':>10} {'read':>10} {'disk':>8}"
        f"   times ours: blocks, readable (goal {GOALS['write']:.0f}); read (goal {GOALS['read']:.0f})"
    )
    rows: dict[str, Any] = {}
    lengths: set[int] = set()
    for name in TRACKERS:
        if name == "dynlora":
            continue
        python = interpreter(name, others)
        if python is None:
            rows[name] = "not installed"
            print(f"  {name:24} not installed", flush=True)
            continue
        values = payload(modules, min(steps, SLOW.get((name, modules), steps)))
        try:
            rows[name] = compare(name, python, values, repeats)
        except (RuntimeError, subprocess.TimeoutExpired) as error:
            rows[name] = f"failed: {error}"
            print(f"  {name:24} {rows[name]}", flush=True)
            continue
        if len(values) not in lengths:
            lengths.add(len(values))
            print(row("our store", rows[name], "ours"))
        print(row(name, rows[name], "theirs"), flush=True)
    return rows


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--python", type=Path, default=OTHERS, help="of the environment that holds the trackers")
    parser.add_argument("--quick", action="store_true", help="once, few steps: does it work, nothing more")
    arguments, _ = parser.parse_known_args()
    sizes, steps, repeats = ((36,), 20, 1) if arguments.quick else ((36, 224), arguments.steps, arguments.repeats)
    figures: dict[str, Any] = {"goals": GOALS, "signals": len(SIGNALS), "load_before": os.getloadavg(), "sizes": {}}
    for modules in sizes:
        figures["sizes"][f"{modules} modules"] = measure(modules, steps, repeats, arguments.python.absolute())
    figures["load_after"] = os.getloadavg()
    print("written:", results.write("store-quick" if arguments.quick else "store", figures, "benchmarks.store"))


if __name__ == "__main__":
    main()
