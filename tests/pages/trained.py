"""Small trained runs of several tasks for the pages that ask a model, and the model itself, in this process."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dynlora.errors import DynloraError
from dynlora.inference.client import InferenceChild
from dynlora.inference.worker import Answering
from dynlora.jobs.helper_job import Failure
from tests.tiny import tiny_config, tiny_rows, write_csv


class Here(InferenceChild):
    """An inference child that is this process."""

    def __init__(self) -> None:
        """Hold no model yet."""
        super().__init__()
        self.answering = Answering()
        self.broken: str | None = None
        self.pace = 5

    @property
    def pid(self) -> int | None:
        """Whether there is one."""
        return 1

    def ask(self, ask: str, timeout_s: float = 0, **arguments: Any) -> Any:
        """Answer as the child does, over JSON; an ablation advances a little at each question."""
        if self.broken:
            raise DynloraError(self.broken)
        for _ in range(self.pace):
            self.answering.advance()
        line = json.dumps({"number": 1, "ask": ask, "arguments": arguments})
        reply = json.loads(json.dumps(self.answering.reply(line)))
        if not reply["ok"]:
            raise Failure.model_validate(reply["error"]).exception()
        return reply["answer"]

    def finish(self) -> None:
        """Measure all that is left of every ablation, as the child does while no page asks."""
        while self.answering.busy:
            self.answering.advance()


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


def lent(folder: Path, runs_dir: Path) -> str:
    """Copy a run into the runs folder of the test and return its id."""
    shutil.copytree(folder, runs_dir / folder.name, ignore=shutil.ignore_patterns("knockout.json"))
    return folder.name
