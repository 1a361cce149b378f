"""The base class of a task: everything that depends on what a model learns, from labels to a prediction in words."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor, nn

from dynlora.data_files.columns import Columns
from dynlora.errors import DataError
from dynlora.tasks.labels import LabelColumn
from dynlora.tasks.token_rows import EncodedRows, Prompt, TextRows


@dataclass(frozen=True)
class Task(ABC):
    """What a model learns; every one is a `LabelledTask` or an `UnlabelledTask`.

    Attributes:
        labels: names of the classes, in order of their index; empty for a task without classes.
        name: in configs, checkpoints and on pages.
        order: tasks with a lower one are asked first whether they claim data.
        peft_task_type: what PEFT's adapter_config.json calls it.
        metrics: every metric that can decide which checkpoint is best, and whether higher is better.
        group_metrics: numbers recorded for each input group, beside the loss and the deciding metric.
        trains_head: whether the head is new, and trained in full beside the adapters.
        is_causal: whether a token sees only those before it, and nothing may tell it of those after.
        loss_unit, prediction_unit, output_unit, disagreement_unit: units of what is recorded per example.
    """

    labels: tuple[str, ...] = ()

    name: ClassVar[str]
    order: ClassVar[int] = 100
    peft_task_type: ClassVar[str]
    metrics: ClassVar[Mapping[str, bool]]
    group_metrics: ClassVar[Sequence[str]] = ()
    trains_head: ClassVar[bool] = True
    is_causal: ClassVar[bool] = False
    loss_unit: ClassVar[str] = "nats"
    prediction_unit: ClassVar[str]
    output_unit: ClassVar[str]
    disagreement_unit: ClassVar[str] = "nats"

    # --- data

    @classmethod
    def claims_columns(cls, columns: Columns) -> bool:
        """Say whether the columns alone show that data is of this task, when the config leaves that open."""
        return False

    def prepared(
        self, model: nn.Module, modules: Callable[[], Sequence[str]], batches: Callable[[int], list[Any]]
    ) -> Self:
        """Return the task once the base model is there; only one that depends on it is another then.

        Args:
            model: without adapters.
            modules: gives the names of those that can be adapted.
            batches: gives n batches of training texts.
        """
        return self

    def loader(self, model: Any) -> str:
        """Return the name of the transformers class that loads a model of this task."""
        return self.model_class().__name__

    def settings(self) -> dict[str, str]:
        """Return what a checkpoint keeps of the task beside its name and its classes."""
        own = [item.name for item in fields(self) if item.name != "labels"]
        return {name: getattr(self, name) for name in own}

    @abstractmethod
    def encode_rows(self, tokenizer: Any, rows: TextRows, max_length: int) -> EncodedRows:
        """Return rows as tokens, cut after `max_length` of them.

        Raises:
            DataError: when the tokenizer lacks something that the rows need.
        """

    @abstractmethod
    def whole_lengths(self, tokenizer: Any, rows: TextRows) -> list[int]:
        """Return how many tokens each row has when nothing is cut."""

    @abstractmethod
    def no_labels(self, n: int) -> np.ndarray:
        """Return placeholders for the labels of n texts that have none, (n,)."""

    @abstractmethod
    def group_of(self, label: Any) -> str:
        """Return the name of the input group that a label makes (`data.group_by=label`)."""

    def deciding_metric(self, metric: str, data_name: str) -> str:
        """Return the metric that decides which checkpoint is best.

        Args:
            metric: `data.metric`, a name or `auto`.
            data_name: of the data set: some benchmarks have a metric of their own.

        Raises:
            DataError: when the task has no such metric.
        """
        if metric == "auto":
            return self.usual_metric(data_name)
        if metric not in self.metrics:
            raise DataError(f"data.metric={metric}: does not fit data.task={self.name}; set it to auto")
        return metric

    @abstractmethod
    def usual_metric(self, data_name: str) -> str:
        """Return the metric that decides where the config leaves it open."""

    def warnings(self, train: np.ndarray, held_out: np.ndarray) -> list[str]:
        """Return what a person should know about the labels of both sides."""
        return []

    # --- model

    @classmethod
    @abstractmethod
    def made(cls, model: Any) -> bool:
        """Say whether a model of one's own was made for this task; the last task asked takes all."""

    @abstractmethod
    def model_class(self) -> Any:
        """Return the transformers class that loads the model with its head."""

    @abstractmethod
    def configure(self, config: Any) -> None:
        """Write what the head needs to know into a transformers config."""

    # --- loss and predictions

    @abstractmethod
    def forward(self, model: nn.Module, inputs: Mapping[str, Tensor]) -> Any:
        """Return what the model says of a batch without its labels, in the form that the methods below take."""

    @abstractmethod
    def batch_loss(self, output: Any, labels: Tensor) -> Tensor:
        """Return the loss of a batch, (): the mean over the labels that count, of all its examples."""

    @abstractmethod
    def judged(self, output: Any, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return the loss of each example, (batch,), and what the model says of it, (batch, k), in `output_unit`."""

    @abstractmethod
    def readings(self, output: Any, labels: Tensor) -> Tensor:
        """Return the numbers of each example that show whether two models are the same, (batch, k)."""

    def confidence(self, output: np.ndarray) -> np.ndarray:
        """Return how sure the model is of each of its predictions, (n,), of outputs (n, k), in `output_unit`."""
        return output.max(1)

    @abstractmethod
    def example_loss(self, output: Any, labels: Tensor) -> Tensor:
        """Return the loss of each example, (batch,), of what `forward` returned; labels (batch,) or (batch, seq)."""

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

    def facts(self) -> dict[str, Any]:
        """Return what pages need to know of the task; they load no torch, so a run keeps it."""
        return {
            "loss_unit": self.loss_unit,
            "prediction_unit": self.prediction_unit,
            "lower_is_better": [name for name, higher in self.metrics.items() if not higher],
            "generates": isinstance(self, WritingTask),
        }

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


@dataclass(frozen=True)
class LabelledTask(Task):
    """A task with one label for each text, or pair of texts: the model has a new head, and what it says are logits.

    Attributes:
        example: labels of a small table of this task; `dynlora.contracts` tries it with them.

    >>> from dynlora.tasks import LabelledTask
    >>> from dynlora.tasks.classification import Classification
    >>> issubclass(Classification, LabelledTask), Classification.example.train
    (True, ['a', 'b', 'b'])
    """

    example: ClassVar[LabelColumn]

    @classmethod
    @abstractmethod
    def claims(cls, column: LabelColumn) -> bool:
        """Say whether labels are of this task when the config leaves that open."""

    @classmethod
    @abstractmethod
    def of(cls, column: LabelColumn) -> Self:
        """Return the task of these labels.

        Raises:
            DataError: when the labels do not fit; one sentence that says what to change.
        """

    @abstractmethod
    def encode(self, values: Sequence[Any], class_names: Sequence[str] | None) -> np.ndarray:
        """Return a column's labels as the model takes them, (n,)."""

    def encode_rows(self, tokenizer: Any, rows: TextRows, max_length: int) -> EncodedRows:
        """Return text, or both texts, as the tokenizer has them; each row has one label."""
        limit = min(max_length, tokenizer.model_max_length)
        encoded = tokenizer(rows.text, rows.text_pair, truncation=True, max_length=limit)
        names = [name for name in tokenizer.model_input_names if name in encoded]
        return EncodedRows([{name: encoded[name][index] for name in names} for index in range(len(rows.text))])

    def whole_lengths(self, tokenizer: Any, rows: TextRows) -> list[int]:
        """Return the tokens of text, or both texts, as the tokenizer has them."""
        return [len(ids) for ids in tokenizer(rows.text, rows.text_pair, verbose=False)["input_ids"]]

    def forward(self, model: nn.Module, inputs: Mapping[str, Tensor]) -> Any:
        """Return the logits, (batch, n)."""
        return model(**inputs).logits

    def batch_loss(self, output: Any, labels: Tensor) -> Tensor:
        """Return the mean loss of the examples, ()."""
        return self.example_loss(output, labels).mean()

    def judged(self, output: Any, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return the loss of each example, (batch,), and its `output`, (batch, k)."""
        return self.example_loss(output, labels), self.output(output)

    def readings(self, output: Any, labels: Tensor) -> Tensor:
        """Return the logits, (batch, n)."""
        return output

    @abstractmethod
    def output(self, logits: Tensor) -> Tensor:
        """Return what the model says of each example, (batch, n), in `output_unit`."""

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


@dataclass(frozen=True)
class UnlabelledTask(Task):
    """A task whose rows need no column of labels."""

    trains_head: ClassVar[bool] = False

    @classmethod
    @abstractmethod
    def of_columns(cls, section: Any, columns: Columns) -> Self:
        """Return the task of data without labels.

        Args:
            section: section `data` of the configuration.
            columns: those that are learned from.
        """

    def no_labels(self, n: int) -> np.ndarray:
        """Return zeros, (n,), int64."""
        return np.zeros(n, np.int64)

    def labels_by_group(self, groups: Sequence[str] | None, labels: np.ndarray) -> np.ndarray:
        """Return what the input groups of rows say of them in the place of labels, (n,); by default nothing.

        Args:
            groups: of each row, None where they are not known before training.
            labels: as `no_labels` returns them.
        """
        return labels


@dataclass(frozen=True)
class WritingTask(UnlabelledTask):
    """A task whose texts are to be written: no labels, the head is the model's own, and prompts are continued."""

    is_causal: ClassVar[bool] = True

    @abstractmethod
    def check_tokenizer(self, tokenizer: Any, rows: TextRows) -> None:
        """Refuse a tokenizer that lacks something the rows need, before a run is made.

        Raises:
            DataError: one sentence that says what is missing and what to use instead.
        """

    @abstractmethod
    def judged_by_token(self, output: Any, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return what `judged` returns, and the loss of each token, (batch, seq), NaN where one does not count."""

    @abstractmethod
    def prompt_fields(self, texts: Sequence[str]) -> Mapping[str, list[Any]]:
        """Return what else `rows.fields` holds where a person asks a model that writes texts to continue them."""

    @abstractmethod
    def prompt(self, tokenizer: Any, rows: TextRows, index: int, *, is_whole: bool = False) -> Prompt:
        """Return what a model that writes texts is given of a row; with `is_whole` all of a text, not its beginning."""

    @abstractmethod
    def after_prompts(self) -> WritingTask:
        """Return the task with its loss on what is written after a prompt, and on nothing of the prompt."""

    @abstractmethod
    def halves(self, text: str) -> tuple[str, str]:
        """Return a text without a prompt as its beginning, and what is to be written after it."""

    @abstractmethod
    def is_right(self, answer: str, written: str) -> bool:
        """Say whether a written text gives the right answer."""


def mean_pair_distance(values: Tensor) -> Tensor:
    """Return the L1 distance of members' values, (M, batch, n), its mean over pairs of members and examples, ()."""
    apart = torch.cdist(values.transpose(0, 1), values.transpose(0, 1), p=1)
    return apart.sum() / (len(apart) * len(values) * (len(values) - 1))
