"""Many processes read a run while one writes it: `python -m tests.faults.readers --readers 50 --steps 2000`.

A reader opens the run again and again and holds every answer against what it must be: step s of each signal is full
of the number s, steps come without a gap, and never fewer than before. Prints a JSON report with what a step's record
costs the writer, alone and while it is read.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from dynlora.store.schema import ModuleRow
from dynlora.store.writer import RunWriter

MODULES, SIGNALS = 36, ("importance", "rank", "gate")


def written(runs_dir: Path, steps: int, pause_s: float) -> tuple[Path, list[float]]:
    """Write a run of so many steps and return its folder and the seconds each step's record took."""
    folder = RunWriter.create(runs_dir, config_yaml="", meta={"name": "read by many"}, max_steps=steps, state="running")
    rows = [ModuleRow(f"layer.{i}.query", i, "query", 8, 8, 4) for i in range(MODULES)]
    took = []
    with RunWriter.open(folder, resume_from=None) as writer:
        writer.define_modules(rows)
        for name in SIGNALS:
            writer.define_signal(name, "module", "", MODULES)
        for step in range(steps):
            before = time.perf_counter()
            for name in SIGNALS:
                writer.vector(name, step, np.full(MODULES, float(step)))
            writer.scalar("loss", "train", step, float(step))
            writer.progress(step)
            took.append(time.perf_counter() - before)
            time.sleep(pause_s)
        writer.finish("finished")
    return folder, took


def reading(runs_dir: Path, done: Path) -> None:
    """Read until `done` is there; leave with 1 and a word on standard error at the first wrong answer."""
    from dynlora.errors import DynloraError
    from dynlora.store.reader import RunReader

    most, reads = -1, 0
    while True:
        over = done.exists()
        for folder in runs_dir.glob("2*"):
            try:
                with RunReader(folder) as reader:
                    wrong, most = _wrong(reader, most)
            except DynloraError as error:
                wrong = f"could not be read: {error}"
            if wrong:
                sys.stderr.write(f"{wrong}\n")
                os._exit(1)
            reads += 1
        if over:
            (done.parent / f"reads-{os.getpid()}").write_text(str(reads))
            os._exit(0)


def _wrong(reader: Any, most: int) -> tuple[str, int]:
    """Return what is wrong with what a reader sees, and the last step it saw."""
    for name in reader.signals():
        steps, values = reader.signal(name)
        if list(steps) != list(range(len(steps))):
            return f"{name}: steps have gaps", most
        if len(steps) and not np.array_equal(
            values, np.repeat(np.arange(len(steps), dtype=np.float32)[:, None], MODULES, 1)
        ):
            return f"{name}: values are wrong", most
        if name == "rank":
            if len(steps) - 1 < most:
                return f"{name}: {most - len(steps) + 1} steps went away", most
            most = max(most, len(steps) - 1)
    return "", most


def main() -> None:
    """Write once alone and once while it is read, and print the report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--readers", type=int, default=50)
    parser.add_argument("--steps", type=int, default=2000)
    arguments = parser.parse_args()
    root = Path(tempfile.mkdtemp(prefix="dynlora-readers-"))
    _, alone = written(root / "alone", arguments.steps, 0.001)
    done, runs_dir = root / "done", root / "read"
    runs_dir.mkdir()
    children = []
    for _ in range(arguments.readers):
        pid = os.fork()
        if pid == 0:
            reading(runs_dir, done)
        children.append(pid)
    folder, read = written(runs_dir, arguments.steps, 0.001)
    done.touch()
    codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children]
    reads = sum(int(path.read_text()) for path in root.glob("reads-*"))
    report = {
        "readers": arguments.readers,
        "steps": arguments.steps,
        "reads": reads,
        "wrong": sum(code != 0 for code in codes),
        "step_us_alone": statistics.median(alone) * 1e6,
        "step_us_read": statistics.median(read) * 1e6,
        "files_left": sorted(path.name for path in folder.glob("run.db*")),
    }
    sys.stdout.write(json.dumps(report, indent=1) + "\n")
    shutil.rmtree(root)
    sys.exit(1 if report["wrong"] else 0)


if __name__ == "__main__":
    main()
