"""Regression: a number for each text, or pair of texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from torch import Tensor
from torch.nn import functional as F
from transformers import AutoModelForSequenceClassification

from dynlora.errors import DataError
from dynlora.tasks.base import LabelledTask, mean_pair_distance
from dynlora.tasks.labels import LabelColumn, regression_metrics


class Regression(LabelledTask):
    """ŷ = the head's one output, the loss is the squared error.

    >>> from dynlora.tasks import LabelColumn
    >>> from dynlora.tasks.regression import Regression
    >>> stars = LabelColumn("stars", [0.5, 4.5], [3.0], None)
    >>> Regression.of(stars).encode(stars.train, None)
    array([0.5, 4.5], dtype=float32)
    """

    name = "regression"
    order = 50
    peft_task_type = "SEQ_CLS"
    metrics = {"pearson": True, "spearman": True, "mse": False}
    loss_unit = "squared error"
    prediction_unit = "number"
    output_unit = "number"
    disagreement_unit = "number"
    example = LabelColumn("label", [0.5, 1.0, 2.0], [0.25, 3.0], None)

    @classmethod
    def claims(cls, column: LabelColumn) -> bool:
        """Take labels that are fractional numbers."""
        return column.is_fractional

    @classmethod
    def of(cls, column: LabelColumn) -> Self:
        """Return the task, for labels that are numbers."""
        if not column.is_numeric:
            raise DataError(f"data.task=regression: data.label={column.name} has text; give a column of numbers")
        return cls()

    def encode(self, values: Sequence[Any], class_names: Sequence[str] | None) -> np.ndarray:
        """Return the target numbers, (n,), float32."""
        return np.asarray(values, dtype=np.float32)

    def no_labels(self, n: int) -> np.ndarray:
        """Return zeros, (n,), float32."""
        return np.zeros(n, np.float32)

    def group_of(self, label: Any) -> str:
        """Return the number, rounded to a whole one."""
        return f"{label:.0f}"

    def usual_metric(self, data_name: str) -> str:
        """Return Pearson's r."""
        return "pearson"

    @classmethod
    def made(cls, model: Any) -> bool:
        """Say whether a model was made to predict one number."""
        config = getattr(model, "config", None)
        return getattr(config, "problem_type", None) == "regression" or getattr(config, "num_labels", 0) == 1

    def model_class(self) -> Any:
        """Return the class that puts a head with one output on a transformer."""
        return AutoModelForSequenceClassification

    def configure(self, config: Any) -> None:
        """Ask for one output."""
        config.num_labels = 1
        config.problem_type = "regression"

    def example_loss(self, output: Tensor, labels: Tensor) -> Tensor:
        """Return the squared error of each example, (batch,)."""
        return F.mse_loss(output.squeeze(-1).float(), labels, reduction="none")

    def output(self, logits: Tensor) -> Tensor:
        """Return the predicted number, (batch, 1)."""
        return logits.float()

    def pool_members(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Return the members' mean, (batch, 1), and their standard deviation, (batch,)."""
        logits = logits.float()
        return logits.mean(0), logits.squeeze(-1).std(0, correction=0)

    def member_distance(self, logits: Tensor) -> Tensor:
        """Return the absolute difference, its mean over pairs of members and examples, ()."""
        return mean_pair_distance(logits.float())

    def prediction(self, output: np.ndarray) -> np.ndarray:
        """Return the predicted number of each row, (n,)."""
        return output[:, 0]

    def evaluate(self, label: np.ndarray, prediction: np.ndarray, output: np.ndarray) -> dict[str, float]:
        """Return Pearson's and Spearman's correlation and the mean squared error."""
        return regression_metrics(label, prediction)

    def describe(self, value: Any) -> str | float:
        """Return the number."""
        return float(value)

    def margins(self, output: np.ndarray, prediction: Any) -> np.ndarray:
        """Return the number of every row, (n,)."""
        return output[:, 0].astype(float)
