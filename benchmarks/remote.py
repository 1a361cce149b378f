"""What it takes to send runs to a folder elsewhere and to ask all of them with SQL.

python -m benchmarks.remote [--runs 2000] [--quick]

The runs are copies of one generated run in the real format, 36 modules and 200 steps, under ids of their own. They are
sent to a folder on this disk, so that the figures are dynlora's and DuckDB's own. A network adds its round trips: one
per file that is sent, one per manifest that is read. The queries are those of docs/guides/remote.md, read from there.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb

import dynlora
from benchmarks import results
from benchmarks.generated_runs import many_runs
from dynlora.remote.place import Place
from dynlora.remote.sync import manifests, pull, push_all
from dynlora.store.catalogue import run_folders

GUIDE = Path(__file__).resolve().parents[1] / "docs" / "guides" / "remote.md"
DOCUMENTED = "s3://bucket/runs"


def documented_queries(place: str) -> list[str]:
    """Return the SQL of the guide, in order, for a folder of runs."""
    blocks = re.findall(r"```sql\n(.*?)```", GUIDE.read_text("utf-8"), flags=re.DOTALL)
    return [block.replace(DOCUMENTED, place) for block in blocks]


def timed(act: Callable[[], Any], repeats: int = 1) -> float:
    """Return the median time of an act, seconds."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        act()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def query_seconds(place: str) -> dict[str, float]:
    """Return the seconds of each documented query, the view of the manifests made first."""
    view, by_method, files, by_kind = documented_queries(place)
    with duckdb.connect() as connection:
        connection.execute(view)
        return {
            "best by method and rank": timed(lambda: connection.execute(by_method).fetchall(), 3),
            "files of three tables": timed(lambda: connection.execute(files), 3),
            "final rank by kind of module": timed(lambda: connection.execute(by_kind).fetchall(), 3),
        }


def measured(folder: Path, number: int) -> dict[str, Any]:
    """Return the figures of so many runs."""
    os.environ["DYNLORA_CACHE"] = str(folder / "cache")
    runs, place = folder / "runs", Place(str(folder / "there"))
    many_runs(runs, number)
    first = run_folders(runs)[0]
    local = sum(path.stat().st_size for path in first.rglob("*") if path.is_file())
    sent = timed(lambda: push_all(runs, place))
    sizes = place.below(first.name).sizes()
    return {
        "runs": number,
        "send_s_per_run": sent / number,
        "sync_unchanged_s": timed(lambda: push_all(runs, place)),
        "list_s": timed(lambda: manifests(place), 3),
        "fetch_one_s": timed(lambda: pull(place, first.name, Path(tempfile.mkdtemp(dir=folder))), 3),
        "open_and_read_ranks_s": timed(
            lambda: dynlora.open_run(f"file://{folder}/there/{first.name}").signal("rank"), 3
        ),
        "run_bytes_here": local,
        "run_bytes_there": sum(sizes.values()),
        "files_per_run": len(sizes),
        "queries_s": query_seconds(str(folder / "there")),
    }


def main() -> None:
    """Measure and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=2000)
    parser.add_argument("--quick", action="store_true", help="fifty runs")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        figures = measured(Path(folder), 50 if options.quick else options.runs)
    for name, value in figures.items():
        print(f"{name:24} {value}")
    name = "remote-quick" if options.quick else "remote"
    print("written:", results.write(name, {**figures, "duckdb": duckdb.__version__}, "benchmarks.remote"))


if __name__ == "__main__":
    main()
