"""What finished adapters give to intents that nobody trained, without their data: whole recycles, one a seed.

    python -m benchmarks.recycle [--data FOLDER_OF_CLINC150] [--model smollm2-135m] [--teachers 4] [--seeds 3]

CLINC150 has 150 intents. 60 of them are for the test; of the others each teacher learns six. A seed draws inputs and
episodes; all ways are tested on the same 600 episodes of 5 ways with 1 and 5 shots. Without --data the classes are
those of sentiment4, domain and sentiment: too few for more than two teachers and two ways.
"""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy import stats
from transformers.utils import logging as transformers_logging

from benchmarks import results
from dynlora import assets
from dynlora.cli.kinds import worked_on
from dynlora.config import parse_config
from dynlora.kinds.recycle.settings import RecycleSettings
from dynlora.training import run

SHOTS = (1, 5)
PARTS = ("accuracy", "against_base", "against_averaged", "test")
"""What is kept of the results of a recycle."""


def texts_of(folder: Path | None) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return texts to train and to test on with their classes; without a folder domain and sentiment of sentiment4."""
    if folder is not None:
        train, test = (pd.read_parquet(folder / f"{name}.parquet") for name in ("train", "test"))
        return train, test
    file = next(path for path in assets.resolve_data("sentiment4").iterdir() if path.stem == "train")
    rows = pd.read_csv(file) if file.suffix == ".csv" else pd.read_parquet(file)
    rows["label"] = rows["domain"].astype(str) + " " + rows["label"].astype(str)
    few = rows.groupby("label").head(60).reset_index(drop=True)
    return few, few


def labelled(rows: pd.DataFrame, labels: list[str], file: Path) -> Path:
    """Write the rows of some classes and return the file."""
    rows[rows["label"].isin(labels)][["text", "label"]].to_csv(file, index=False)
    return file


def teachers(rows: pd.DataFrame, labels: list[str], arguments: argparse.Namespace, folder: Path) -> Iterator[str]:
    """Train each teacher on classes of its own and yield its id."""
    for number in range(arguments.teachers):
        mine = labels[number * arguments.classes : (number + 1) * arguments.classes]
        values = {
            "name": f"teacher {number + 1}",
            "model": {"name": arguments.model},
            "data": {"path": str(labelled(rows, mine, folder / f"teacher-{number}.csv")), "max_length": 32},
            "adapter": {"rank": 4},
            "strategy": {"name": "lora"},
            "train": {"steps": arguments.steps, "lr": 2e-3, "head_lr": None},
            "log": {"eval_every": arguments.steps, "checkpoint_every": arguments.steps},
        }
        outcome = run.train(parse_config(values), folder / "runs")
        if outcome.state != "finished":
            raise SystemExit(f"teacher {number}: {outcome.error}")
        yield outcome.folder.name


def over(gains: list[float]) -> list[float]:
    """Return the mean over seeds and the ends of its 95 % interval by Student's t; the mean alone of one seed."""
    mean = float(np.mean(gains))
    if len(gains) < 2:
        return [mean]
    half = float(stats.t.ppf(0.975, len(gains) - 1) * np.std(gains, ddof=1) / len(gains) ** 0.5)
    return [mean, mean - half, mean + half]


def gained(by_seed: list[dict[str, Any]]) -> dict[str, list[float]]:
    """Return what is gained by the number of examples, over seeds."""
    return {str(shots): over([gains[str(shots)]["mean"] for gains in by_seed]) for shots in SHOTS}


def recycled(values: dict[str, Any], runs_dir: Path) -> dict[str, Any]:
    """Return the results of one recycle as the command makes it."""
    document, words, code = worked_on(RecycleSettings.parse(values), runs_dir)
    if code:
        raise SystemExit(words)
    return {part: document[part] for part in PARTS}


def main() -> None:
    """Train the teachers, recycle with each seed, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=None, help="folder of CLINC150")
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--seeds", type=int, default=3)
    for name, value in {"teachers": 4, "classes": 6, "test-classes": 60, "steps": 60, "episodes": 60}.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--quick", action="store_true", help="few steps: does it work, nothing more")
    arguments, _ = parser.parse_known_args()
    logging.disable(logging.WARNING)
    transformers_logging.disable_progress_bar()
    torch.set_num_threads(1)
    amounts = {"iterations": 24, "inputs": 10, "test_episodes": 600}
    if arguments.data is None:
        arguments.teachers, arguments.classes, arguments.test_classes = 2, 3, 2
    if arguments.quick:
        arguments.model, arguments.steps, arguments.episodes, arguments.seeds = "minilm", 20, 10, 1
        amounts = {"iterations": 4, "inputs": 6, "test_episodes": 40}
    folder = results.emptied("recycle")
    folder.mkdir(parents=True)
    train, test = texts_of(arguments.data)
    order = list(np.random.default_rng(0).permutation(sorted(train["label"].unique())))
    ids = list(teachers(train, order[arguments.test_classes :], arguments, folder))
    unseen = labelled(test, order[: arguments.test_classes], folder / "unseen.csv")
    values = {"teachers": ids, "shots": SHOTS, "episodes": arguments.episodes, "noise": True, "test": str(unseen)}
    values |= {**amounts, "rank": 8, "lora_alpha": 16, "moments": 1.0, "ways": min(5, arguments.test_classes)}
    seeds: dict[str, Any] = {}
    for seed in range(arguments.seeds):
        seeds[str(seed)] = recycled({**values, "seed": seed}, folder / "runs")
        over_seeds = {part: gained([one[part]["meta"] for one in seeds.values()]) for part in PARTS[1:3]}
        name = "recycle-quick" if arguments.quick else "recycle"
        results.write(name, {"seeds": seeds, "over_seeds": over_seeds}, "benchmarks.recycle")
    print(json.dumps(over_seeds, indent=2))


if __name__ == "__main__":
    main()
