"""Small trained runs of several tasks for the pages that ask a model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.tiny import tiny_config, tiny_rows, write_csv


def train(model: Path, data: Path, runs_dir: Path, **overrides: Any) -> Path:
    """Train a few steps without gates and return the run's folder."""
    import dynlora

    values = {"train__steps": 8, "strategy": {"name": "lora"}, **overrides}
    return dynlora.train(tiny_config(model, data, **values), runs_dir, progress=False).folder


def save_rows(folder: Path, kind: str) -> Path:
    """Write training and held-out rows of a kind and return their folder.

    Args:
        folder: is made.
        kind: `pairs` of texts, `numbers` for labels, or labels with `other` names.
    """
    folder.mkdir(parents=True)
    for name, n, seed in (("train", 40, 1), ("validation", 20, 2)):
        write_csv(folder / f"{name}.csv", [_row(row, kind, index) for index, row in enumerate(tiny_rows(n, seed))])
    return folder


def _row(row: Mapping[str, str], kind: str, index: int) -> dict[str, Any]:
    if kind == "pairs":
        return {"sentence1": row["text"], "sentence2": "the plot was dull", "label": row["label"]}
    if kind == "numbers":
        return {"text": row["text"], "label": (row["label"] == "good") + index % 3 / 4}
    return {"text": row["text"], "label": {"good": "positive", "bad": "negative"}[row["label"]]}
