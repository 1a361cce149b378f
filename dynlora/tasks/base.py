"""The base class of a task: everything that depends on what a model learns, from labels to a prediction in words."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from dynlora.errors import DataError
from dynlora.tasks.labels import LabelColumn


@dataclass(frozen=True)
class Task(ABC):
    """What a model learns.

    Attributes:
        labels: names of the classes, in order of their index; empty for a task without classes.
        name: in configs, checkpoints and on pages.
        order: tasks with a lower one are asked first whether they claim data.
        peft_task_type: what PEFT's adapter_config.json calls it.
        metrics: every metric that can decide which checkpoint is best, and whether higher is better.
        group_metrics: numbers recorded for each input group, beside the loss and the deciding metric.
        loss_unit, prediction_unit, output_unit, disagreement_unit: units of what is recorded per example.
    """

    labels: tuple[str, ...] = ()

    name: ClassVar[str]
    order: ClassVar[int] = 100
    peft_task_type: ClassVar[str]
    metrics: ClassVar[Mapping[str, bool]]
    group_metrics: ClassVar[Sequence[str]] = ()
    loss_unit: ClassVar[str] = "nats"
    prediction_unit: ClassVar[str]
    output_unit: ClassVar[str]
    disagreement_unit: ClassVar[str] = "nats"

    # --- data

    @classmethod
    @abstractmethod
    def claims(cls, column: LabelColumn) -> bool:
        """Say whether labels are of this task when the config leaves that open."""

    @classmethod
    @abstractmethod
    def of(cls, column: LabelColumn) -> Task:
        """Return the task of these labels.

        Raises:
            DataError: when the labels do not fit; one sentence that says what to change.
        """

    @abstractmethod
    def encode(self, values: Sequence[Any], class_names: Sequence[str] | None) -> np.ndarray:
        """Return a column's labels as the model takes them, (n,)."""

    @abstractmethod
    def no_labels(self, n: int) -> np.ndarray:
        """Return stand-ins for the labels of n texts that have none, (n,)."""

    @abstractmethod
    def group_of(self, label: Any) -> str:
        """Return the name of the input group that a label makes (`data.group_by=label`)."""

    def deciding_metric(self, wanted: str, data_name: str) -> str:
        """Return the metric that decides which checkpoint is best.

        Args:
            wanted: `data.metric`, a name or `auto`.
            data_name: of the data set: some benchmarks have a metric of their own.

        Raises:
            DataError: when the task has no such metric.
        """
        if wanted == "auto":
            return self.usual_metric(data_name)
        if wanted not in self.metrics:
            raise DataError(f"data.metric={wanted}: does not fit data.task={self.name}; set it to auto")
        return wanted

    @abstractmethod
    def usual_metric(self, data_name: str) -> str:
        """Return the metric that decides where the config leaves it open."""

    def warnings(self, train: np.ndarray, held_out: np.ndarray) -> list[str]:
        """Return what a person should know about the labels of both sides."""
        return []

    # --- model

    @classmethod
    @abstractmethod
    def made(cls, config: Any) -> bool:
        """Say whether a transformers config is that of a model made for this task; the last task asked takes all."""

    @abstractmethod
    def model_class(self) -> Any:
        """Return the transformers class that loads the model with its head."""

    @abstractmethod
    def configure(self, config: Any) -> None:
        """Write what the head needs to know into a transformers config."""

    # --- loss and predictions

    @abstractmethod
    def example_loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the loss of each example, (batch,), from logits (batch, n) and labels (batch,)."""

    @abstractmethod
    def output(self, logits: Tensor) -> Tensor:
        """Return what the model says of each example, (batch, n), in `output_unit`."""

    @abstractmethod
    def prediction(self, output: np.ndarray) -> np.ndarray:
        """Return the predicted class index or number, (n,), from outputs (n, k)."""

    @abstractmethod
    def evaluate(self, label: np.ndarray, prediction: np.ndarray, output: np.ndarray) -> dict[str, float]:
        """Return the metrics of predictions against the truth; a metric's name is its key."""

    def details(self, label: np.ndarray, prediction: np.ndarray) -> dict[str, Any]:
        """Return what an `evaluate` event holds beside the metrics."""
        return {}

    def is_better(self, metric: str, new: Mapping[str, float], old: Mapping[str, float]) -> bool:
        """Say whether an evaluation is better than the best so far; a tie goes to the lower loss."""
        if not old:
            return True
        sign = 1 if self.metrics[metric] else -1
        here, there = sign * new[metric], sign * old[metric]
        return here > there or (here == there and new["loss"] < old["loss"])

    @abstractmethod
    def pool_members(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Return what ensemble members predict together, (batch, n), and how far they disagree, (batch,).

        Args:
            logits: of M members, (M, batch, n).
        """

    @abstractmethod
    def member_distance(self, logits: Tensor) -> Tensor:
        """Return the mean distance of members' predictions over pairs of members and examples, ().

        Args:
            logits: of M members, (M, batch, n).
        """

    # --- words

    @abstractmethod
    def describe(self, value: Any) -> str | float:
        """Return a label or a prediction for people: the class name, or the number."""

    def answer(self, prediction: Any, output: np.ndarray) -> dict[str, Any]:
        """Return one prediction as plain values: `prediction`, and what else belongs to the task."""
        return {"prediction": self.describe(prediction)}

    @abstractmethod
    def margins(self, output: np.ndarray, prediction: Any) -> np.ndarray:
        """Return how strongly each output, (n, k), speaks for one prediction, (n,)."""

    def flips(self, one: Any, other: Any) -> bool:
        """Say whether two predictions differ in kind, not merely in degree."""
        return False

    def matches(self, other: Task) -> bool:
        """Say whether the labels of another task's data can be compared with this one's."""
        return self.name == other.name and sorted(self.labels) == sorted(other.labels)

    def translate(self, label: np.ndarray, source: Task) -> np.ndarray:
        """Return labels of a matching task, (n,), in this one's own encoding."""
        return label

    def said_labels(self) -> str:
        """Return the labels for a message."""
        return ", ".join(self.labels) or "numbers"


def mean_pair_distance(values: Tensor) -> Tensor:
    """Return the L1 distance of members' values, (M, batch, n), its mean over pairs of members and examples, ()."""
    apart = torch.cdist(values.transpose(0, 1), values.transpose(0, 1), p=1)
    return apart.sum() / (len(apart) * len(values) * (len(values) - 1))
