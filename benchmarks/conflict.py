"""Data in which inputs are in conflict, so that a gate that reacts to the input should pay if it pays anywhere.

    python -m benchmarks.conflict                      # writes the data below `benchmarks/out/conflict`
    python -m benchmarks.tuned --data benchmarks/out/conflict/turned --rank 1 --methods "lora;lora, scale;gates only"

Three data sets are made of `sentiment4`, with its examples and its split:

- `turned`: the labels of tweets are turned round, so that an adapter must know the domain of a text.
- `turned-two`: the labels of tweets and of editorials are turned round.
- `two-tasks`: each text begins with the question that is asked of it, its sentiment or its domain; six labels.

The domain is the group of each example, so that every run says what reacting gains in each of them.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks import results
from dynlora import assets
from dynlora.engine.randomness import stream_seed

FOLDER = results.QUICK / "conflict"
SPLITS = ("train", "validation")


def turned(table: pd.DataFrame, *domains: str) -> pd.DataFrame:
    """Return the table with the labels of some domains turned round: 0 becomes 1."""
    label = table["label"].astype(int)
    return table.assign(label=label.where(~table["domain"].isin(domains), 1 - label))


def two_tasks(table: pd.DataFrame) -> pd.DataFrame:
    """Return the table with a question before each text, drawn once: its sentiment, or its domain; labels are words."""
    rng = np.random.default_rng(stream_seed(0, "two tasks", len(table)))
    asks_domain = rng.random(len(table)) < 0.5
    sentiment = table["label"].astype(int).map({0: "negative", 1: "positive"})
    question = np.where(asks_domain, "source: ", "sentiment: ")
    return table.assign(text=question + table["text"], label=sentiment.where(~asks_domain, table["domain"]))


MADE: dict[str, Callable[[pd.DataFrame], pd.DataFrame]] = {
    "turned": lambda table: turned(table, "tweets"),
    "turned-two": lambda table: turned(table, "tweets", "nyt"),
    "two-tasks": two_tasks,
}


def write(folder: Path = FOLDER) -> list[Path]:
    """Write every data set and return their folders."""
    source = assets.resolve_data("sentiment4")
    folders = [folder / name for name in MADE]
    for path, make in zip(folders, MADE.values(), strict=True):
        path.mkdir(parents=True, exist_ok=True)
        for split in SPLITS:
            table = pd.read_parquet(source / f"{split}.parquet")
            make(table)[["text", "label", "domain"]].to_parquet(path / f"{split}.parquet")
    return folders


if __name__ == "__main__":
    for made in write():
        print(made)
