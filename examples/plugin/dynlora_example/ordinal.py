"""Classes in an order, such as one to five stars: an answer that is one off costs less than one that is four off."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from torch import Tensor
from torch.nn import functional as F

from dynlora.errors import DataError
from dynlora.tasks import LabelColumn
from dynlora.tasks.classification import Classification


class Ordinal(Classification):
    """p = softmax(logits); the loss is the ranked probability score Σ_k (P(y ≤ k) - 1[y ≤ k])²."""

    name = "ordinal"
    order = 40  # before classification, which takes every model that no task before it made
    metrics = {"mae": False, "accuracy": True}
    loss_unit = "ranked probability score"
    example = LabelColumn("stars", [1, 2, 3], [3, 1], None)

    @classmethod
    def claims(cls, column: LabelColumn) -> bool:
        """Take no labels of its own accord: a config names this task."""
        return False

    @classmethod
    def of(cls, column: LabelColumn) -> Self:
        """Return the task with the classes in the order of their numbers."""
        if not column.is_numeric:
            raise DataError(f"data.task=ordinal: data.label={column.name} has text; give whole numbers, in their order")
        return super().of(column)

    def usual_metric(self, data_name: str) -> str:
        """Return the mean absolute error."""
        return "mae"

    @classmethod
    def made(cls, model: Any) -> bool:
        """Say whether a model was made for this task."""
        return bool(getattr(model.config, "is_ordinal", False))

    def configure(self, config: Any) -> None:
        """Write the classes, and what `made` reads."""
        super().configure(config)
        config.is_ordinal = True

    def example_loss(self, output: Tensor, labels: Tensor) -> Tensor:
        """Return the ranked probability score of each example, (batch,)."""
        truth = F.one_hot(labels, len(self.labels)).float()
        return (output.float().softmax(-1) - truth).cumsum(-1).square().sum(-1)

    def evaluate(self, label: np.ndarray, prediction: np.ndarray, output: np.ndarray) -> dict[str, float]:
        """Return how many classes predictions are off in the mean, and what a classification measures."""
        return {**super().evaluate(label, prediction, output), "mae": float(np.abs(label - prediction).mean())}
