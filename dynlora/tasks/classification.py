"""Classification: one of several classes for each text, or pair of texts."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import AutoModelForSequenceClassification

from dynlora.data_files.examples import texts_among_fractions
from dynlora.data_files.faults import MAX_CLASSES
from dynlora.errors import DataError
from dynlora.tasks.base import LabelledTask, Task, mean_pair_distance
from dynlora.tasks.labels import (
    LabelColumn,
    calibration_metrics,
    classification_metrics,
    confusion,
    label_text,
)

MAX_CONFUSION = 50
"""Classes up to which a confusion table is kept."""

CERTAIN = 1e-6
"""Probabilities closer to 0 or 1 than this count as this far away: their log-odds would be infinite."""

BENCHMARK_METRICS = {"mrpc": "f1", "qqp": "f1", "cola": "matthews"}
"""Metrics that GLUE defines for its tasks."""


class Classification(LabelledTask):
    """p = softmax(logits), the loss is the cross entropy in nats."""

    name = "classification"
    order = 90
    peft_task_type = "SEQ_CLS"
    metrics = {"accuracy": True, "f1": True, "matthews": True}
    group_metrics = ("ece", "brier")
    prediction_unit = "class"
    output_unit = "probability"
    example = LabelColumn("label", ["a", "b", "b"], ["c", "a"], None)

    @classmethod
    def claims(cls, column: LabelColumn) -> bool:
        """Take all labels that no other task claims."""
        return True

    @classmethod
    def of(cls, column: LabelColumn) -> Self:
        """Return the task with the classes in the order of their names."""
        label = column.name
        if column.is_fractional:
            raise DataError(f"data.task=classification: data.label={label} has fractions; use data.task=regression")
        kinds = sorted(set(column.values), key=lambda value: (str(type(value)), value))
        if len(set(column.train)) < 2:
            raise DataError(
                f"data.label={label}: the training examples have only one class ({kinds[0]}); use data with two or more"
            )
        if len(kinds) > MAX_CLASSES:
            raise DataError(
                f"data.label={label}: {len(kinds):,} different values are too many for classes "
                f"(at most {MAX_CLASSES}); use another column, or data.task=regression"
            )
        if texts := texts_among_fractions(kinds):
            raise DataError(
                f"data.label={label}: has numbers and the text {min(texts)[:40]!r}; correct or remove such rows"
            )
        names = [_class_name(kind, column.class_names) for kind in kinds]
        return cls(tuple(dict.fromkeys(names)))

    def encode(self, values: Sequence[Any], class_names: Sequence[str] | None) -> np.ndarray:
        """Return class indices, (n,), int64."""
        index = {name: position for position, name in enumerate(self.labels)}
        return np.array([index[_class_name(value, class_names)] for value in values], dtype=np.int64)

    def no_labels(self, n: int) -> np.ndarray:
        """Return zeros, (n,), int64."""
        return np.zeros(n, np.int64)

    def group_of(self, label: Any) -> str:
        """Return the class name."""
        return self.labels[int(label)]

    def deciding_metric(self, metric: str, data_name: str) -> str:
        """Return the metric that decides; F1 is that of the second of two classes."""
        if metric == "f1" and len(self.labels) != 2:
            raise DataError(f"data.metric=f1: needs two classes, the data has {len(self.labels)}; use accuracy")
        return super().deciding_metric(metric, data_name)

    def usual_metric(self, data_name: str) -> str:
        """Return GLUE's own metric for its tasks, else accuracy."""
        metric = BENCHMARK_METRICS.get(data_name.lower(), "accuracy")
        return metric if metric != "f1" or len(self.labels) == 2 else "accuracy"

    def warnings(self, train: np.ndarray, held_out: np.ndarray) -> list[str]:
        """Say which classes are rare, and whether the held-out side holds one class only."""
        counts, sentences = Counter(train.tolist()), []
        most = max(counts.values())
        rare = [name for index, name in enumerate(self.labels) if counts.get(index, 0) * 20 < most]
        if rare:
            sentences.append(
                f"Few examples: {', '.join(rare[:5])} {'is' if len(rare) == 1 else 'are'} less than a twentieth of the "
                f"most frequent class ({most:,} examples); add examples, merge classes, or judge by f1 per class."
            )
        if len(set(held_out.tolist())) < 2:
            sentences.append("The held-out examples have only one class, so accuracy means little.")
        return sentences

    @classmethod
    def made(cls, model: Any) -> bool:
        """Take every model that no other task does."""
        return True

    def model_class(self) -> Any:
        """Return the class that puts a classification head on a transformer."""
        return AutoModelForSequenceClassification

    def configure(self, config: Any) -> None:
        """Write the classes into the model's config.

        Raises:
            DataError: where there are none, as in a saved state that was damaged.
        """
        if not self.labels:
            raise DataError("labels: names no class, and a classifier has one at least; train the run again")
        config.num_labels = len(self.labels)
        config.id2label = dict(enumerate(self.labels))
        config.label2id = {name: index for index, name in enumerate(self.labels)}
        config.problem_type = "single_label_classification"

    def example_loss(self, output: Tensor, labels: Tensor) -> Tensor:
        """Return the cross entropy of each example in nats, (batch,)."""
        return F.cross_entropy(output.float(), labels, reduction="none")

    def output(self, logits: Tensor) -> Tensor:
        """Return class probabilities, (batch, n_labels)."""
        return logits.float().softmax(-1)

    def pool_members(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Return the logarithm of the members' mean probabilities, and their mutual information in nats.

        The softmax of the first is the mean. H(mean p) - mean H(p) is what knowing the member says of the class.
        """
        each = logits.float().log_softmax(-1)
        together = each.logsumexp(0) - math.log(len(each))
        return together, (_entropy(together) - _entropy(each).mean(0)).clamp_min(0)

    def member_distance(self, logits: Tensor) -> Tensor:
        """Return the total variation ½ Σ_k |p_k - q_k|, 0 to 1, its mean over pairs of members and examples, ()."""
        return mean_pair_distance(logits.float().softmax(-1)) / 2

    def prediction(self, output: np.ndarray) -> np.ndarray:
        """Return the most probable class of each row, (n,)."""
        return output.argmax(1)

    def evaluate(self, label: np.ndarray, prediction: np.ndarray, output: np.ndarray) -> dict[str, float]:
        """Return accuracy, F1, Matthews' correlation and how well calibrated the probabilities are."""
        n = len(self.labels) or output.shape[1]
        return classification_metrics(label, prediction, n) | calibration_metrics(label, output)

    def details(self, label: np.ndarray, prediction: np.ndarray) -> dict[str, Any]:
        """Return the confusion table, rows the truth and columns the prediction; None where it would be too large."""
        n = len(self.labels)
        return {"confusion": confusion(label, prediction, n).tolist() if n <= MAX_CONFUSION else None}

    def describe(self, value: Any) -> str | float:
        """Return the class name."""
        return self.labels[int(value)]

    def answer(self, prediction: Any, output: np.ndarray) -> dict[str, Any]:
        """Return the class name, and the probability of each class."""
        probabilities = dict(zip(self.labels, output.tolist(), strict=True))
        return {**super().answer(prediction, output), "probabilities": probabilities}

    def margins(self, output: np.ndarray, prediction: Any) -> np.ndarray:
        """Return the log-odds log(p / (1 - p)) of one class in every row, (n,)."""
        certain = np.clip(output[:, int(prediction)].astype(float), CERTAIN, 1 - CERTAIN)
        return np.log(certain) - np.log1p(-certain)

    def flips(self, one: Any, other: Any) -> bool:
        """Say whether two predictions are different classes."""
        return bool(one != other)

    def translate(self, label: np.ndarray, source: Task) -> np.ndarray:
        """Return class indices in the order of this task's classes, (n,)."""
        return np.array([self.labels.index(name) for name in source.labels])[label]


def _entropy(log_p: Tensor) -> Tensor:
    """Return -Σ p log p over the last dimension; a probability of zero adds nothing."""
    return -(log_p.exp() * log_p.clamp_min(torch.finfo(log_p.dtype).min)).sum(-1)


def _class_name(value: Any, class_names: Sequence[str] | None) -> str:
    """Return the name of a class."""
    return str(class_names[value]) if class_names and isinstance(value, int) else label_text(value)
