"""What 10,000 runs do to a runs folder, to the list of runs and to Compare.

    python -m benchmarks.many_runs [--runs 10000]

Runs are generated in the real format: one is recorded, 200 steps of 36 modules, the others are copies with a name and
a seed of their own, 20 seeds of each configuration. Adapters and checkpoints are left out: they grow with the model and
are read by none of these. A list is timed in processes of their own, with and without the file that remembers rows;
pages are drawn by Streamlit's own test frame, without a browser.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

from benchmarks import results
from benchmarks.generated_runs import finish_run, start_run
from benchmarks.pages import LIST, ROOT, Spent, drawn, opened, spent
from dynlora.cli.run_commands import runs
from dynlora.store.catalogue import LISTING_NAME, run_rows
from dynlora.store.search import found_rows

SIZES, SEEDS = (100, 1000, 10_000), 20
COMPARED = (12, 200)
"""Runs side by side: a small sweep, and the largest that one command makes."""


def listing(root: Path) -> None:
    """Print the list of runs, which nobody reads."""
    with redirect_stdout(StringIO()):
        runs.main(["--runs-dir", str(root)], standalone_mode=False)


def generate(root: Path, have: int, number: int) -> None:
    """Add finished runs until there are so many.

    Args:
        root: folder of the runs.
        have: runs that it holds, 0 for an empty one.
        number: of runs afterwards.
    """
    if not have:
        first = finish_run(start_run(root, 200, 36, "run 0"))
        first.rename(root / _id(0))
    for index in range(max(1, have), number):
        folder = root / _id(index)
        shutil.copytree(root / _id(0), folder)
        seed, rate = index % SEEDS, 1e-4 * (1 + index // SEEDS)
        config = {"name": f"run {index}", "seed": seed, "adapter": {"rank": 8}, "train": {"steps": 200, "lr": rate}}
        with sqlite3.connect(folder / "run.db") as connection:
            connection.execute("PRAGMA synchronous=OFF")
            for key, value in (("name", config["name"]), ("seed", seed), ("config", config), ("id", folder.name)):
                connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, json.dumps(value)))
        connection.close()


def _id(index: int) -> str:
    return f"20260101-000000-{index:08x}"


def on_disk(root: Path) -> tuple[int, int]:
    """Return the bytes that a folder occupies, and its files and folders."""
    entries = list(_entries(root))
    return sum(512 * entry.st_blocks for entry in entries), len(entries)


def _entries(folder: Path) -> Iterator[os.stat_result]:
    for entry in os.scandir(folder):
        yield entry.stat(follow_symlinks=False)
        if entry.is_dir(follow_symlinks=False):
            yield from _entries(Path(entry.path))


def listed(root: Path) -> Spent:
    """Return what it costs a fresh process to list the runs, its imports left out."""
    done = subprocess.run(
        [sys.executable, "-c", LIST.format(folder=str(root))], cwd=ROOT, capture_output=True, text=True, check=True
    )
    wall, cpu, _ = done.stdout.split()
    return Spent(float(wall), float(cpu))


def compare_page(root: Path, number: int) -> Spent:
    """Return what it costs Compare to show so many runs for the first time; 0: those that it chooses itself."""
    step = max(1, len([*root.glob("2*")]) // max(1, number))
    chosen = ",".join(_id(index * step) for index in range(number))
    app = opened("compare", **({"runs": chosen} if chosen else {}))
    return spent(lambda: drawn(app))


def measure(root: Path, number: int) -> dict[str, Any]:
    """Return the figures of a folder that holds so many runs."""
    os.environ["DYNLORA_RUNS_DIR"] = str(root)
    (root / LISTING_NAME).unlink(missing_ok=True)
    size, entries = on_disk(root)
    figures: dict[str, Any] = {
        "bytes": size,
        "entries": entries,
        "list, first of all": listed(root),
        "list, fresh process": listed(root),
    }
    rows = run_rows(root)
    figures["list, warm"] = spent(lambda: run_rows(root))
    figures["search"] = spent(lambda: found_rows("seed=3 accuracy>0.1", rows))
    figures["dynlora runs"] = spent(lambda: listing(root))
    app = opened("runs")
    figures["Runs page, first"] = spent(lambda: drawn(app))
    figures["Runs page, again"] = spent(lambda: drawn(app))
    figures["Compare, no runs chosen, first"] = compare_page(root, 0)
    for count in COMPARED:
        if count <= number:
            figures[f"Compare of {count} runs, first"] = compare_page(root, count)
    return figures


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=SIZES[-1], help="the largest folder")
    parser.add_argument("--quick", action="store_true", help="few runs: does it work, nothing more")
    arguments, _ = parser.parse_known_args()
    most = 24 if arguments.quick else arguments.runs
    figures: dict[str, Any] = {"load_before": os.getloadavg(), "sizes": {}}
    with tempfile.TemporaryDirectory() as folder:
        root, have = Path(folder) / "runs", 0
        for number in [*(size for size in SIZES if size < most), most]:
            generate(root, have, number)
            have, measurements = number, measure(root, number)
            figures["sizes"][str(number)] = {
                name: value._asdict() if isinstance(value, Spent) else value for name, value in measurements.items()
            }
            size, entries = measurements["bytes"] / 2**20, measurements["entries"]
            print(f"\n{number:,} runs: {size:,.0f} MiB, {entries:,} files and folders")
            for name, value in measurements.items():
                if isinstance(value, Spent):
                    print(f"  {name:30} {value.wall_s:8.2f} s, processor {value.cpu_s:8.2f} s", flush=True)
    figures["load_after"] = os.getloadavg()
    print(
        "written:",
        results.write("many_runs-quick" if arguments.quick else "many_runs", figures, "benchmarks.many_runs"),
    )


if __name__ == "__main__":
    main()
