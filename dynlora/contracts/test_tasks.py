"""What every task with labels must hold: labels in and out, losses, metrics, predictions; it is tested by existing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from dynlora import tasks
from dynlora.analysis.run_summary import LOW_IS_GOOD
from dynlora.config import DataConfig
from dynlora.data_files.columns import Columns, resolved
from dynlora.tasks import LabelColumn, LabelledTask

KINDS: dict[str, type[LabelledTask]] = {
    name: kind for name, kind in sorted(tasks.registry().items()) if issubclass(kind, LabelledTask)
}
ROUNDING = 1e-6
"""A loss that is as good as 0 may be any number below this."""

each = pytest.mark.parametrize("name", KINDS)


def task_of(name: str) -> Any:
    """Return a task of its example's labels."""
    return KINDS[name].of(KINDS[name].example)


def chosen(name: str, column: LabelColumn) -> tasks.Task:
    """Return the task of a table that has texts and these labels, for a config that names it, or `auto`."""
    columns = resolved(["text", "label"], Columns(None, None, "label", None))
    section: Any = DataConfig.model_validate({"path": "x", "task": name})
    return tasks.choose(name, section, columns, lambda: column)


def described(task: LabelledTask, encoded: Sequence[Any]) -> list[str]:
    """Return what a person reads of labels, as text: a class 2 is named "2"."""
    return [str(task.describe(value)) for value in encoded]


def outputs_of(task: LabelledTask) -> int:
    """Return how many numbers its head gives."""
    return max(1, len(task.labels))


@each
def test_it_is_chosen_where_a_config_names_it_or_it_claims_the_labels(name: str) -> None:
    """It has the name of its entry point; where the config leaves the task open, it is taken only if it claims them."""
    kind = KINDS[name]
    assert chosen(name, kind.example) == task_of(name)
    assert task_of(name).name == name
    assert (chosen("auto", kind.example) == task_of(name)) == kind.claims(kind.example)


@each
def test_a_checkpoint_brings_it_back(name: str) -> None:
    """It is built again from its name, its labels and its settings."""
    task = task_of(name)
    assert tasks.build(task.name, list(task.labels), task.settings()) == task


@each
def test_labels_survive_encoding(name: str) -> None:
    """A label that is encoded and described is the label."""
    task, column = task_of(name), KINDS[name].example
    encoded = task.encode(column.values, column.class_names)
    assert described(task, encoded) == [str(value) for value in column.values]
    assert task.no_labels(4).dtype == encoded.dtype
    assert all(isinstance(task.group_of(value), str) for value in encoded)


@each
def test_losses_are_per_example_and_least_at_the_truth(name: str) -> None:
    """The loss has one value per example, a gradient and full precision, and is least where the output is right."""
    task = task_of(name)
    labels = torch.from_numpy(task.encode(KINDS[name].example.train, None))
    n = outputs_of(task)
    right = labels.view(-1, 1).float() if n == 1 else 20 * torch.nn.functional.one_hot(labels, n).float()
    logits = right.clone().requires_grad_(True)
    wrong = task.example_loss(right + torch.randn(right.shape, generator=torch.Generator().manual_seed(0)) * 9, labels)
    least = task.example_loss(logits, labels)
    assert least.shape == labels.shape
    assert bool((least <= wrong + ROUNDING).all())
    least.mean().backward()
    assert logits.grad is not None
    assert task.example_loss(right.to(torch.bfloat16), labels).dtype == torch.float32


@each
def test_predictions_metrics_and_words(name: str) -> None:
    """It predicts, measures every metric that it declares, and says an answer in words."""
    task = task_of(name)
    logits = torch.randn(9, outputs_of(task), generator=torch.Generator().manual_seed(1))
    output = task.output(logits).numpy()
    prediction = task.prediction(output)
    label = task.encode([KINDS[name].example.values[index % 3] for index in range(9)], None)
    metrics = task.evaluate(label, prediction, output)
    assert {name for name, is_high in task.metrics.items() if not is_high} <= set(LOW_IS_GOOD), "pages know these"
    assert set(task.metrics) | set(task.group_metrics) <= set(metrics) | {"f1"}
    assert all(math.isfinite(value) for value in metrics.values())
    assert prediction.shape == (9,)
    assert task.margins(output, prediction[0]).shape == (9,)
    answer = task.answer(prediction[0], output[0])
    assert answer["prediction"] == task.describe(prediction[0])
    assert not task.flips(prediction[0], prediction[0])
    assert isinstance(task.details(label, prediction), dict)


@each
def test_a_head_is_configured_for_it(name: str) -> None:
    """A model that is made for it has a head of its size, and is recognised."""
    task = task_of(name)
    config = transformers.BertConfig(
        vocab_size=30, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
    )
    task.configure(config)
    model = task.model_class().from_config(config)
    logits = model(torch.tensor([[1, 2, 3]])).logits
    assert logits.shape == (1, outputs_of(task))
    assert type(tasks.of_model(model)) is type(task)


@each
def test_members_that_agree_do_not_disagree(name: str) -> None:
    """Members of an ensemble that say the same have no distance."""
    task = task_of(name)
    one = torch.randn(1, 5, outputs_of(task), generator=torch.Generator().manual_seed(2))
    together, apart = task.pool_members(one.expand(3, -1, -1))
    assert np.allclose(task.output(together).numpy(), task.output(one[0]).numpy(), atol=1e-6)
    assert float(apart.abs().max()) < 1e-6
    assert float(task.member_distance(one.expand(3, -1, -1))) < 1e-6
    assert float(task.pool_members(torch.cat([one, -one]))[1].max()) > 0


@each
def test_labels_of_other_data_are_translated(name: str) -> None:
    """Labels of data with its classes in another order become its own."""
    task, column = task_of(name), KINDS[name].example
    other: Any = tasks.build(name, list(reversed(task.labels)))
    assert task.matches(other)
    label = other.encode(column.values, None)
    assert described(task, task.translate(label, other)) == [str(value) for value in column.values]
