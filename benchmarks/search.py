"""A study of 20 trials that is killed in the middle and continued, and whether its best beats the default.

    python -m benchmarks.search [--trials 20] [--killed-after 10] [--runs-dir FOLDER]

`dynlora sweep --search` tries learning rates and ranks of `dynamic` on `sentiment4`. After half of the trials the
process that searches is killed with SIGKILL, and the same command is given again. Best and default are then trained on
three new seeds. Their held-out losses are paired by row; the interval draws seeds and rows again. With --runs-dir the
runs stay, and the command continues there.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import results
from dynlora.analysis.stats import t_reach
from dynlora.store.queries import list_runs
from dynlora.store.summary import run_summary

MODULE = "benchmarks.search"
PLACES = ("--runs-dir",)
"""Options that change nothing of what is measured."""

STUDY = "benchmark"
SPACE = ("train.lr=5e-4..3e-2:log", "adapter.rank=1..8")
LOOK_S = 0.5


@dataclass(frozen=True)
class Size:
    """How much is trained.

    Attributes:
        trials: of the study.
        killed_after: trials that have ended when the search is killed.
        steps: optimizer steps of each run.
        rows: held-out examples.
        seeds: new ones, on which best and default are trained.
    """

    trials: int
    killed_after: int
    steps: int
    rows: int
    seeds: int = 3


def command(runs_dir: Path, size: Size) -> list[str]:
    """Return the command that searches."""
    fixed = (
        "model.name=minilm",
        "data.name=sentiment4",
        "data.max_train=1000",
        f"data.max_eval={size.rows}",
        f"train.steps={size.steps}",
        f"log.eval_every={size.steps}",
        "train.head_lr=null",
    )
    sets = [part for one in (*fixed, *SPACE) for part in ("--set", one)]
    flags = ["--study", STUDY, "--trials", str(size.trials), "--confirm", str(size.seeds), "--pruner", "none", "--json"]
    return [sys.executable, "-m", "dynlora", "sweep", "--search", *flags, "--runs-dir", str(runs_dir), *sets]


def ended(runs_dir: Path) -> int:
    """Return how many runs have ended."""
    return int((list_runs(runs_dir)["status"] == "finished").sum()) if runs_dir.is_dir() else 0


def killed(runs_dir: Path, size: Size) -> int | None:
    """Begin the study, kill it after some trials, and return how many runs there were; None where nobody knows."""
    note = runs_dir.with_name(f"{runs_dir.name}-killed.json")
    if ended(runs_dir) > size.killed_after:
        return json.loads(note.read_text("utf-8"))["runs"] if note.is_file() else None
    child = subprocess.Popen(command(runs_dir, size), stdout=subprocess.DEVNULL)
    try:
        while ended(runs_dir) <= size.killed_after:  # the default is one more
            if child.poll() is not None:
                raise SystemExit(f"the search ended by itself with {child.returncode}")
            time.sleep(LOOK_S)
    finally:
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
    note.write_text(json.dumps({"runs": len(list_runs(runs_dir))}), "utf-8")
    return len(list_runs(runs_dir))


def continued(runs_dir: Path, size: Size) -> dict[str, Any]:
    """Give the command again and return what it prints."""
    done = subprocess.run(command(runs_dir, size), stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout)


def figures_of(document: Mapping[str, Any], runs_dir: Path, size: Size, had: int | None) -> dict[str, Any]:
    """Return what was found: trials, runs, best and default on the new seeds.

    Args:
        document: what the command printed.
        runs_dir: of the runs.
        size: how much was trained.
        had: runs that there were when the search was killed; None where nobody knows.
    """
    study = document["studies"][0]
    ids = [trial["run"] for trial in study["trials"]]
    sides = ("best", "default")
    losses = [
        [run_summary(runs_dir / row[side])["metrics"]["loss"] or np.nan for side in sides] for row in study["seeds"]
    ]
    differences = np.array([best - default for best, default in losses])
    return {
        "trials": len(ids),
        "runs_of_trials": len(set(ids)),
        "runs": len(list_runs(runs_dir)),
        "states": sorted({trial["state"] for trial in study["trials"]}),
        "steps": size.steps,
        "default": study["default"],
        "best": study["best"],
        "importance": study["importance"],
        "losses_on_new_seeds": [dict(zip(sides, pair, strict=True)) for pair in losses],
        "over_rows": document["comparisons"][0],
        "over_seeds": over_seeds(differences),
        "runs_when_killed": had,
        "seeds": size.seeds,
    }


def over_seeds(differences: np.ndarray) -> list[float]:
    """Return mean and 95 % interval (t) of the differences of seeds; rows are not drawn again."""
    mean, n = float(differences.mean()), len(differences)
    if n < 2:
        return [mean]
    half = t_reach(differences)
    return [mean, mean - half, mean + half]


def report(figures: Mapping[str, Any]) -> None:
    """Print what was found."""
    rows, seeds = figures["over_rows"], figures["over_seeds"]
    print(f"\n{figures['trials']} trials are {figures['runs_of_trials']} runs, each {', '.join(figures['states'])}")
    best, default = figures["best"], figures["default"]
    print(f"best: {best['values']}, loss {best['value']:.4f}; default {default['value']:.4f}")
    print(f"on {rows['n']} new seeds, best minus default, {rows['key']}: {rows['difference']:+.4f} nats")
    print(f"  95 % CI over seeds and rows {rows['low']:+.4f} to {rows['high']:+.4f}: {rows['outcome']}")
    print("  over seeds alone: " + " to ".join(f"{end:+.4f}" for end in seeds[1:]))


def main() -> None:
    """Search, kill, continue, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--killed-after", type=int, default=10, metavar="TRIALS")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--seeds", type=int, default=3, help="new seeds on which best and default are trained")
    parser.add_argument("--runs-dir", type=Path, default=None)
    parser.add_argument("--quick", action="store_true", help="few trials and steps: does it work, nothing more")
    arguments = parser.parse_args()
    size = Size(arguments.trials, arguments.killed_after, arguments.steps, 300, arguments.seeds)
    if arguments.quick:
        size = Size(4, 2, 10, 100)
    with tempfile.TemporaryDirectory() as place:
        runs_dir = arguments.runs_dir or Path(place) / "runs"
        had = killed(runs_dir, size)
        figures = figures_of(continued(runs_dir, size), runs_dir, size, had)
    report(figures)
    print("written:", results.write("search-quick" if arguments.quick else "search", figures, MODULE, PLACES))


if __name__ == "__main__":
    main()
