"""A dashboard under load: many runs, a long one that grows, viewers who stay; or a new run trained again and again.

python -m tests.faults.load --runs 1000 --steps 200000 --modules 448 --viewers 10 --minutes 5
python -m tests.faults.load --runs 0 --steps 2000 --modules 36 --viewers 2 --minutes 30 --train-every 60

Everything is real and on this machine alone: runs written by the store's own writer, the server as `dynlora ui` starts
it, a Chromium with a page for each viewer, all open together, trainings through the dashboard's queue; where those are
asked for no run grows beside them, for a queue trains one run at a time. It ends by itself. Prints a JSON report: what
was opened and how long that took, what went wrong, and the server's memory.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from benchmarks.generated_runs import RANK, finish_run, many_runs, record, start_run
from benchmarks.screen import server
from dynlora.jobs import launch
from dynlora.store import queries
from dynlora.store.writer import RunWriter
from tests.browser.chromium import find_chromium
from tests.tiny import save_data, save_tiny, tiny_values

WAIT_MS = 120_000
LIVE_STEP_S = 0.25
"""Pause between two steps of the run that is written while others look, seconds."""

TRAINED_STEPS = 20
DRAWN = '[data-testid="stApp"][data-test-script-state="notRunning"]'


class LiveRun:
    """A run that a thread writes, a step now and then, until it is told to end."""

    def __init__(self, writer: RunWriter, steps: int, modules: int) -> None:
        self.writer, self.steps, self.last = writer, steps, steps
        self.ranks = np.full(modules, float(RANK), dtype=np.float32)
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self._write)

    def _write(self) -> None:
        while not self.ended.wait(LIVE_STEP_S):
            self.last += 1
            record(self.writer, self.last, self.steps, self.ranks)

    def end(self) -> Path:
        """Write no more and end the run; a second time it does nothing. Returns its folder."""
        if not self.ended.is_set():
            self.ended.set()
            self.thread.join()
            finish_run(self.writer)
        return self.writer.folder


@contextmanager
def live_run(runs_dir: Path, steps: int, modules: int) -> Iterator[LiveRun]:
    """A run that grows for the block; it starts with some steps."""
    run = LiveRun(start_run(runs_dir, steps, modules, "grows while it is watched"), steps, modules)
    run.thread.start()
    try:
        yield run
    finally:
        run.end()


class Trainings:
    """Runs sent to the queue as the Launch page sends them, one after a pause."""

    def __init__(self, runs_dir: Path, scratch: Path, every_s: float) -> None:
        self.runs_dir, self.every_s = runs_dir, every_s
        (scratch / "data").mkdir()
        self.config = tiny_values(save_tiny("bert", scratch / "model"), save_data(scratch / "data"))
        self.config["train"]["steps"] = TRAINED_STEPS
        self.ids: list[str] = []
        self.next = time.monotonic()

    def due(self, addresses: list[str]) -> None:
        """Send a run if it is time, and let the viewers open it."""
        if time.monotonic() >= self.next:
            self.next += self.every_s
            self.ids.append(launch.enqueue(self.config, self.runs_dir, key=f"load-{len(self.ids)}").id)
            addresses.append(f"run?run={self.ids[-1]}")

    def wrong(self, patience_s: float = 300) -> list[str]:
        """Return a sentence for each run that did not finish with all of its steps; waits for those under way."""
        deadline = time.monotonic() + patience_s
        problems = []
        for run_id in self.ids:
            summary = queries.run_summary(self.runs_dir / run_id)
            while summary.status in ("queued", "running") and time.monotonic() < deadline:
                time.sleep(0.5)
                summary = queries.run_summary(self.runs_dir / run_id)
            if summary.status != "finished" or summary.step != TRAINED_STEPS:
                problems.append(f"run {run_id} is {summary.status} at step {summary.step}")
        return problems


def memory_mib(process: psutil.Process) -> float:
    """Return the resident memory of a process and its children, MiB."""
    return sum(member.memory_info().rss for member in (process, *process.children(recursive=True))) / 2**20


def watch(
    address: str,
    process: psutil.Process,
    addresses: list[str],
    viewers: int,
    seconds: float,
    due: Callable[[list[str]], None],
) -> dict[str, Any]:
    """Let viewers open one page after another, each in its own window, all windows open; return what they met.

    They look for as long as they are told, from their first page on; each page is opened at least once, and
    each viewer opens at least three.
    """
    from playwright.sync_api import sync_playwright

    took, wrong, memory = [], [], []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=find_chromium(), args=["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        )
        windows = [browser.new_context().new_page() for _ in range(viewers)]
        start, least = time.monotonic(), max(len(addresses), 3 * viewers)
        for number in itertools.count():
            if time.monotonic() - start > seconds and number >= least:
                break
            window, place = windows[number % viewers], addresses[number % len(addresses)]
            before = time.perf_counter()
            window.goto(f"{address}/{place}")
            window.wait_for_selector("[data-testid=stMain] h1, [data-testid=stMain] h2", timeout=WAIT_MS)
            window.wait_for_selector(DRAWN, timeout=WAIT_MS)
            took.append(time.perf_counter() - before)
            wrong += [f"{place or 'runs'}: an exception on the page" for _ in range(_exceptions(window))]
            memory.append((time.monotonic() - start, memory_mib(process)))
            due(addresses)
        wrong += [f"a page left open: {window.url}" for window in windows if _exceptions(window)]
        browser.close()
    return {"took": took, "wrong": wrong, "memory": memory}


def _exceptions(window: Any) -> int:
    return window.get_by_test_id("stException").count() + window.get_by_text("Traceback (most recent call").count()


def growth(memory: list[tuple[float, float]]) -> float:
    """Return MiB a minute by which memory grew over the second half: the slope of a line."""
    half = [point for point in memory if point[0] >= memory[-1][0] / 2]
    minutes, sizes = np.array(half).T
    return float(np.polyfit(minutes / 60, sizes, 1)[0]) if len(half) > 1 else 0.0


def under_load(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Make the runs, serve them, let people look, and return the report."""
    runs_dir = folder / "runs"
    runs_dir.mkdir()
    before = time.monotonic()
    if arguments.runs:
        many_runs(runs_dir, arguments.runs)
    trainings = Trainings(runs_dir, folder, arguments.train_every) if arguments.train_every else None
    with live_run(runs_dir, arguments.steps, arguments.modules) as run:
        made_s = time.monotonic() - before
        if trainings:
            run.end()
        name = run.writer.folder.name
        addresses = ["", *(f"{page}?run={name}" for page in ("run", "capacity", "inputs")), f"compare?runs={name}"]
        with server(runs_dir, door=True) as (address, process):
            seconds = 60 * arguments.minutes
            due = trainings.due if trainings else lambda _: None
            met = watch(address, process, addresses, arguments.viewers, seconds, due)
        recorded = queries.run_summary(run.end()).step
    wrong = met["wrong"] + (trainings.wrong() if trainings else [])
    wrong += [] if recorded == run.last else [f"the live run holds {recorded} of {run.last} steps"]
    sizes = [size for _, size in met["memory"]]
    return {
        "runs": arguments.runs,
        "steps": run.last,
        "modules": arguments.modules,
        "viewers": arguments.viewers,
        "minutes": arguments.minutes,
        "made_s": round(made_s, 1),
        "opened": len(met["took"]),
        "median_s": round(statistics.median(met["took"]), 2),
        "worst_s": round(max(met["took"]), 2),
        "trained": len(trainings.ids) if trainings else 0,
        "server_mib": [round(sizes[0]), round(max(sizes)), round(sizes[-1])],
        "growth_mib_per_minute": round(growth(met["memory"]), 2),
        "wrong": wrong,
    }


def main() -> int:
    """Read the command line, print the report; 1 when something went wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=1000, help="finished runs in the folder")
    parser.add_argument("--steps", type=int, default=200_000, help="steps of the run that grows, before anyone looks")
    parser.add_argument("--modules", type=int, default=448)
    parser.add_argument("--viewers", type=int, default=10)
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--train-every", type=float, default=0, help="seconds between two trainings; 0 for none")
    arguments = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    with tempfile.TemporaryDirectory() as folder:
        report = under_load(arguments, Path(folder))
    sys.stdout.write(json.dumps(report, indent=2) + "\n")
    return 1 if report["wrong"] else 0


if __name__ == "__main__":
    sys.exit(main())
