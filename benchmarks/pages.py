"""What a page costs on large stores: server time, time on screen, memory of a page left open, and what grows.

python -m benchmarks.pages

Runs are generated in the real format. Times are medians; the load of the machine is written beside them.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
from streamlit.testing.v1 import AppTest

from benchmarks import results
from benchmarks.generated_runs import RANK, finish_run, many_runs, record, start_run
from benchmarks.screen import on_screen
from dynlora.analysis import capacity_frames, frames
from dynlora.kinds.train.panels import capacity
from dynlora.store import queries
from dynlora.store.catalogue import LISTING_NAME
from dynlora.store.writer import RunWriter
from dynlora.viz import capacity as viz_capacity
from dynlora.viz.kit import module_map, theme
from dynlora.viz.ui import url_state

ROOT = Path(__file__).resolve().parents[1]
COLUMNS = 400
GOALS = {
    "page, first": 1.5,
    "page, other signal": 0.5,
    "page, other step": 0.5,
    "page, other range": 0.5,
    "heat map, 20 new steps": 0.1,
    "live part, 20 new steps": 0.1,
    "list, fresh process": 0.3,
    "list, first of all": 0.3,
    "list, warm": 0.3,
    "Runs page, warm": 0.3,
    "on screen, first": 1.5,
    "on screen, other signal": 0.5,
}
"""Goals, seconds."""

LIST = (
    "import time; from dynlora.store.catalogue import run_rows; start, cpu = time.perf_counter(), time.process_time(); "
    "n = len(run_rows({folder!r})); print(time.perf_counter() - start, time.process_time() - cpu, n)"
)


class Spent(NamedTuple):
    """Seconds of the clock, and seconds of the processor: what the clock says on a machine with nothing else to do."""

    wall_s: float
    cpu_s: float


def spent(act: Callable[[], object]) -> Spent:
    """Return what an act costs."""
    wall, cpu = time.perf_counter(), time.process_time()
    act()
    return Spent(time.perf_counter() - wall, time.process_time() - cpu)


def median(measurements: Iterable[Spent]) -> Spent:
    """Return the medians of several."""
    return Spent(*(statistics.median(column) for column in zip(*measurements, strict=True)))


def repeated(act: Callable[[], object], repeats: int) -> Spent:
    """Return the median cost of an act."""
    return median(spent(act) for _ in range(repeats))


def heat_map(folder: Path, signal: str = "rank", first: int | None = None, last: int | None = None) -> int:
    """Ask for a heat map, draw it, write it as JSON, and return the JSON's length: what a first view needs."""
    heat = queries.heatmap(folder, signal, COLUMNS, first, last)
    modules = capacity_frames.ordered(frames.described(queries.modules_frame(folder)), "kind", np.zeros(0))
    ranks = queries.heatmap(folder, "rank", COLUMNS, first, last).frame
    budget = frames.budget_line(ranks, modules, 0, None)
    view = module_map.MapView(signal, heat.unit, int(heat.last_step[-1]), None, (), None)
    figure = capacity.capacity_map(heat.frame, heat.first_step, modules, budget, view, theme.LIGHT)
    return len(figure.to_json() or "")


def opened(page: str, **address: str) -> AppTest:
    """Return a page that is about to be opened, with values in its address."""
    app = AppTest.from_file(str(ROOT / "app.py"), default_timeout=120)
    for name, value in address.items():
        app.query_params[name] = value
    return app.switch_page(f"pages/{page}.py")


def drawn(app: AppTest) -> AppTest:
    """Draw a page; fails when that raises."""
    app.run()
    if app.exception:
        raise RuntimeError(str(app.exception[0].value))
    return app


def one_run(root: Path, steps: int, modules: int, repeats: int) -> tuple[Path, dict[str, Spent]]:
    """Return a finished run of that size and the server seconds of its Capacity page."""
    os.environ["DYNLORA_RUNS_DIR"] = str(root)
    writer = start_run(root, steps, modules, f"{steps} steps of {modules} modules")
    folder, times = writer.folder, {}
    times["heat map"] = repeated(lambda: heat_map(folder), repeats)
    app = opened("capacity", run=folder.name)
    times["page, first"] = spent(lambda: drawn(app))
    for name, key, values in (
        ("signal", "signal", ["importance", "grad_norm"]),
        ("step", "step", [str(steps * n // 10) for n in range(1, 1 + repeats)]),
        ("range", "steps", [f"{steps * n // 20}-{steps * (n + 9) // 20}" for n in range(1, 1 + repeats)]),
    ):
        times[f"page, other {name}"] = median(_changed(app, key, value) for value in values)
        del app.query_params[key]
    last, ranks = steps, np.full(modules, float(RANK), dtype=np.float32)
    refresh, redraw = [], []
    for _ in range(repeats):
        for step in range(last + 1, last + 21):
            record(writer, step, 10**9, ranks)
        last += 20
        writer.commit()
        refresh.append(spent(lambda: heat_map(folder)))
        redraw.append(spent(lambda: drawn(app)))
    times["heat map, 20 new steps"], times["page, 20 new steps"] = median(refresh), median(redraw)
    times["live part, 20 new steps"] = median(_live_part(app, writer, last + 20 * n, ranks) for n in range(repeats))
    finish_run(writer)
    return folder, times


def _live_part(app: AppTest, writer: RunWriter, last: int, ranks: np.ndarray) -> Spent:
    """Return what redrawing the part that follows every step costs after 20 new ones, from its first line to its last.

    The rest of the page is drawn with it here, because the harness draws whole pages; only the part is timed.
    """
    for step in range(last + 1, last + 21):
        record(writer, step, 10**9, ranks)
    writer.commit()
    clock: list[tuple[float, float]] = []
    begin, end = url_state.follow_address, viz_capacity.live_cards

    def started() -> None:
        clock.append((time.perf_counter(), time.process_time()))
        begin()

    def ended(run: Any) -> None:
        end(run)
        clock.append((time.perf_counter(), time.process_time()))

    with (
        mock.patch.object(url_state, "follow_address", started),
        mock.patch.object(viz_capacity, "live_cards", ended),
    ):
        drawn(app)
    return Spent(clock[1][0] - clock[0][0], clock[1][1] - clock[0][1])


def _changed(app: AppTest, key: str, value: str) -> Spent:
    app.query_params[key] = value
    return spent(lambda: drawn(app))


def listing(root: Path, number: int, repeats: int) -> dict[str, Spent]:
    """Return the seconds that a list of so many finished runs takes."""
    many_runs(root, number)
    os.environ["DYNLORA_RUNS_DIR"] = str(root)
    cold, fresh = [], []
    for _ in range(repeats):
        (root / LISTING_NAME).unlink(missing_ok=True)
        cold.append(_list_in_a_process(root, number))
        fresh.append(_list_in_a_process(root, number))
    queries.list_runs(root)
    app = drawn(opened("runs"))
    return {
        "list, first of all": median(cold),
        "list, fresh process": median(fresh),
        "list, warm": repeated(lambda: queries.list_runs(root), repeats),
        "Runs page, warm": repeated(lambda: drawn(app), repeats),
    }


def _list_in_a_process(root: Path, number: int) -> Spent:
    done = subprocess.run(
        [sys.executable, "-c", LIST.format(folder=str(root))], cwd=ROOT, capture_output=True, text=True, check=True
    )
    wall, cpu, listed = done.stdout.split()
    if int(listed) != number:
        raise RuntimeError(f"{listed} of {number} runs were listed")
    return Spent(float(wall), float(cpu))


def show(title: str, seconds: dict[str, Spent]) -> None:
    """Print a table of what things cost beside their goals, which hold for the clock."""
    print(f"\n{title}")
    for name, value in seconds.items():
        goal = GOALS.get(name)
        verdict = "" if goal is None else f"   goal {1000 * goal:5.0f} ms {'met' if value.wall_s <= goal else 'MISSED'}"
        print(f"  {name:26} {1000 * value.wall_s:8.1f} ms, processor {1000 * value.cpu_s:8.1f} ms{verdict}")


def plain(seconds: dict[str, Spent]) -> dict[str, Any]:
    """Return costs as a file holds them."""
    return {name: value._asdict() for name, value in seconds.items()}


def main() -> None:
    """Generate, measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small runs: does it work, nothing more")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--reruns", type=int, default=500, help="of an open page, between two looks at memory")
    arguments, _ = parser.parse_known_args()
    logging.disable(logging.WARNING)
    quick = arguments.quick
    repeats, reruns = (2, 10) if quick else (arguments.repeats, arguments.reruns)
    figures: dict[str, Any] = {"load_before": os.getloadavg(), "goals_s": GOALS}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        size = (500, 36) if quick else (10_000, 224)
        big, times = one_run(root / "big", *size, repeats)
        show(f"Capacity of a run of {size[0]:,} steps x {size[1]} modules, server time", times)
        figures["server"], figures["runs"] = plain(times), 100 if quick else 1_000
        times = listing(root / "many", figures["runs"], repeats)
        show(f"{figures['runs']:,} runs", times)
        figures["list"] = plain(times)
        figures["screen"] = screen = on_screen(big.parent, big.name, repeats, reruns)
        if screen:
            print("\nThe same run in Chromium")
            print(f"  {'a title alone':26} {1000 * screen['title_s']:8.1f} ms   what streamlit itself takes")
            for name, key in (("on screen, first", "first_s"), ("on screen, other signal", "control_s")):
                verdict = "met" if screen[key] <= GOALS[name] else "MISSED"
                print(f"  {name:26} {1000 * screen[key]:8.1f} ms   goal {1000 * GOALS[name]:5.0f} ms {verdict}")
            print(
                f"  server after 5 reruns {screen['rss_before_mib']:.0f} MiB, "
                f"{reruns} later {screen['rss_after_mib']:.0f} MiB"
            )
    figures["load_after"] = os.getloadavg()
    print("\nload of the machine before and after:", json.dumps([figures["load_before"], figures["load_after"]]))
    print("written:", results.write("pages-quick" if quick else "pages", figures, "benchmarks.pages"))


if __name__ == "__main__":
    main()
