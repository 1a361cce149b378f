"""The tasks: which rows are trained on, which choose a learning rate, and which are reported."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dynlora.config import parse_config
from dynlora.engine.data.text_data import Rows, TextData
from dynlora.training.inputs import read_data

SPLIT_SEED = 123
"""Of the draws that split the rows; the same for every run."""


@dataclass(frozen=True)
class Task:
    """One data set and how it is used.

    Attributes:
        name: of the task, and of its folder below `--data`; an embedded data set has no folder.
        metric: reported beside the loss.
        max_length: tokens after which texts are cut.
        steps: optimizer steps of a run.
        reported: rows of train that are reported instead of the data's own held-out rows, 0 for those.
        tuning: rows of train that choose learning rates; nobody trains on them, and none of them is reported.
        embedded: name of the embedded data set, empty where the rows lie in a folder of the task's name.
        batch_size: rows of a step.
    """

    name: str
    metric: str
    max_length: int
    steps: int
    reported: int
    tuning: int
    embedded: str = ""
    batch_size: int = 32

    def section(self, folder: Path | None) -> dict[str, Any]:
        """Return the config's section `data`.

        Raises:
            SystemExit: when the task needs a folder and none was given.
        """
        if self.embedded:
            return {"name": self.embedded, "max_length": self.max_length}
        if folder is None or not (folder / self.name).is_dir():
            raise SystemExit(f"--data {folder}: holds no folder {self.name}; give the folder of the GLUE tasks")
        return {"path": str(folder / self.name), "metric": self.metric, "max_length": self.max_length}


TASKS = {
    task.name: task
    for task in (
        Task("sentiment4", "accuracy", 64, 300, reported=0, tuning=3_000, embedded="sentiment4"),
        # the same texts, fewer of them: what a larger model can be tried on without a GPU
        Task("sentiment4-few", "accuracy", 64, 60, reported=1_200, tuning=600, embedded="sentiment4", batch_size=16),
        Task("sst2", "accuracy", 64, 300, reported=6_000, tuning=6_000),  # its own 872 are too few
        Task("mrpc", "accuracy", 96, 200, reported=0, tuning=1_000),
        Task("cola", "matthews", 48, 400, reported=0, tuning=1_500),
    )
}


def task_data(task: Task, folder: Path | None, purpose: str) -> TextData:
    """Return the rows of a task.

    Args:
        task: which one.
        folder: that holds the folders of the tasks, None for embedded ones.
        purpose: report, or tune: to train on the same rows and be held to the tuning rows.
    """
    data = read_data(parse_config({"data": task.section(folder)}))
    order = np.random.default_rng(SPLIT_SEED).permutation(len(data.train))
    first, second = task.reported, task.reported + task.tuning
    reported = _part(data.train, order[:first]) if task.reported else data.held_out
    tuning = _part(data.train, order[first:second])
    train = _part(data.train, order[second:])
    return dataclasses.replace(data, train=train, held_out=reported if purpose == "report" else tuning)


def _part(rows: Rows, positions: np.ndarray) -> Rows:
    """Return rows in their own order."""
    return rows.take(np.sort(positions))
