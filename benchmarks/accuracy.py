"""Held-out accuracy of strategies on `sentiment4`, several seeds each, at one budget.

python -m benchmarks.accuracy --strategies lora,dynamic --seeds 3 --runs-dir benchmark_runs

Runs that already lie finished in the runs folder with the same settings are used, not trained again.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path
from typing import Any

import dynlora
from benchmarks import results
from dynlora.config import RunConfig, parse_config
from dynlora.store.catalogue import run_rows
from dynlora.store.summary import run_summary

QUICK = {"train": {"steps": 20}, "data": {"max_eval": 200, "max_train": 1000, "max_length": 32}}


def settings(strategy: str, seed: int, steps: int, rank: int) -> dict[str, Any]:
    """Return the settings of one run; all else is the default."""
    return {"seed": seed, "strategy": {"name": strategy}, "adapter": {"rank": rank}, "train": {"steps": steps}}


def known(runs_dir: Path) -> list[dict[str, Any]]:
    """Return the summaries of the finished runs of a folder."""
    if not runs_dir.is_dir():
        return []
    return [run_summary(row["folder"]) for row in run_rows(runs_dir) if row["status"] == "finished"]


def same(config: RunConfig, summary: dict[str, Any]) -> bool:
    """Say whether a run was made with these settings; its name does not matter."""
    return parse_config({**summary["config"], "name": None}) == config


def main() -> None:
    """Train what is missing, print the table, write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--strategies", default="lora", help="names, separated by commas")
    parser.add_argument("--seeds", type=int, default=3, help="seeds 0 .. n-1")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--rank", type=int, default=4)
    parser.add_argument("--runs-dir", type=Path, default=Path("benchmark_runs"))
    parser.add_argument("--quick", action="store_true", help="tiny runs: does it work, nothing more")
    arguments = parser.parse_args()
    figures = []
    for strategy in arguments.strategies.split(","):
        for seed in range(arguments.seeds):
            values = settings(strategy, seed, arguments.steps, arguments.rank)
            config = parse_config(values | QUICK if arguments.quick else values)
            summary = next((found for found in known(arguments.runs_dir) if same(config, found)), None)
            reused = summary is not None
            if summary is None:
                summary = dynlora.train(config, arguments.runs_dir).summary
            figures.append(
                {"strategy": strategy, "seed": seed, **{k: summary["metrics"][k] for k in ("accuracy", "loss")}}
                | {"active_parameters": summary["params"]["active"] + summary["params"]["gate"], "reused": reused}
            )
    for strategy in arguments.strategies.split(","):
        mine = [row for row in figures if row["strategy"] == strategy]
        accuracy = [100 * row["accuracy"] for row in mine]
        loss = statistics.mean(row["loss"] for row in mine)
        shown = ", ".join(f"{value:.1f}" for value in accuracy)
        print(f"{strategy:10} accuracy {statistics.mean(accuracy):.1f} % ({shown}), held-out loss {loss:.4f}")
    name = "accuracy-quick" if arguments.quick else "accuracy"
    print("written:", results.write(name, figures, "benchmarks.accuracy"))


if __name__ == "__main__":
    main()
