"""What every task promises: labels in and out, losses, metrics, predictions; a new file is tested by existing."""

from __future__ import annotations

import math
import typing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st

from dynlora import tasks
from dynlora.config import GENERATIVE, TASKS, DataConfig
from dynlora.data_files.columns import Columns, resolved
from dynlora.errors import DataError
from dynlora.tasks import LabelColumn, Task

ROOT = Path(__file__).resolve().parents[2]
COLUMNS = {
    "classification": LabelColumn("label", ["a", "b", "b"], ["c", "a"], None),
    "regression": LabelColumn("label", [0.5, 1.0, 2.0], [0.25, 3.0], None),
}
OUTPUTS = {"classification": 3, "regression": 1}
ALL = sorted(tasks.registry())
NAMES = [name for name, kind in sorted(tasks.registry().items()) if issubclass(kind, tasks.LabelledTask)]
"""Tasks with labels."""

TABLES = {
    "causal_lm": [
        ["messages"],
        ["prompt", "completion", "answer"],
        ["text"],
        ["text", "domain", "id"],
        ["difficulty", "text"],
    ],
    "classification": [
        ["text", "label"],
        ["sentence1", "sentence2", "label"],
        ["text", "stars"],
        ["messages", "label"],
    ],
}
"""Columns of data that shows its task, or that of labels."""


def chosen(wanted: str, names: list[str], column: LabelColumn, text: str | None = None) -> Task:
    """Return the task of a table with these columns."""
    columns = resolved(names, Columns(text, None, "label", None))
    return tasks.choose(wanted, DataConfig(path="x"), columns, lambda: column)  # pyright: ignore[reportCallIssue]


def task_of(name: str) -> Any:
    if name not in COLUMNS:
        return chosen(name, TABLES[name][0], LabelColumn("label", [], [], None))
    return chosen(name, ["text", "label"], COLUMNS[name])


def test_every_task_is_tried_here_and_named_in_the_config() -> None:
    assert sorted(COLUMNS) == NAMES
    assert {name for name in ALL if name not in NAMES} <= set(TABLES)
    assert sorted(typing.get_args(DataConfig.model_fields["task"].annotation)) == sorted(["auto", *ALL])


@pytest.mark.parametrize(("name", "names"), [(name, names) for name, several in TABLES.items() for names in several])
def test_columns_show_the_task_where_labels_do_not_decide(name: str, names: list[str]) -> None:
    text = "text" if "stars" in names or names == ["messages", "label"] else None
    assert chosen("auto", names, COLUMNS["classification"], text).name == name


@pytest.mark.parametrize("name", NAMES)
def test_it_claims_its_own_labels(name: str) -> None:
    assert chosen("auto", ["text", "label"], COLUMNS[name]) == task_of(name)


@pytest.mark.parametrize("name", ALL)
def test_a_checkpoint_brings_it_back(name: str) -> None:
    task = task_of(name)
    assert tasks.build(task.name, list(task.labels), task.settings()) == task
    assert bool(task.settings()) != isinstance(task, tasks.LabelledTask)


@pytest.mark.parametrize("name", NAMES)
def test_labels_survive_encoding(name: str) -> None:
    task, column = task_of(name), COLUMNS[name]
    encoded = task.encode(column.values, column.class_names)
    assert [task.describe(value) for value in encoded] == column.values
    assert task.no_labels(4).dtype == encoded.dtype
    assert all(isinstance(task.group_of(value), str) for value in encoded)


@pytest.mark.parametrize("name", NAMES)
def test_losses_are_per_example_and_least_at_the_truth(name: str) -> None:
    task = task_of(name)
    labels = torch.from_numpy(task.encode(COLUMNS[name].train, None))
    n = OUTPUTS[name]
    right = labels.view(-1, 1).float() if n == 1 else 20 * torch.nn.functional.one_hot(labels, n).float()
    logits = right.clone().requires_grad_(True)
    wrong = task.example_loss(right + torch.randn(right.shape, generator=torch.Generator().manual_seed(0)) * 9, labels)
    least = task.example_loss(logits, labels)
    assert least.shape == labels.shape
    assert bool((least <= wrong).all())
    least.mean().backward()
    assert logits.grad is not None
    assert task.example_loss(right.to(torch.bfloat16), labels).dtype == torch.float32


@pytest.mark.parametrize("name", NAMES)
def test_predictions_metrics_and_words(name: str) -> None:
    task = task_of(name)
    logits = torch.randn(9, OUTPUTS[name], generator=torch.Generator().manual_seed(1))
    output = task.output(logits).numpy()
    prediction = task.prediction(output)
    label = task.encode([COLUMNS[name].values[index % 3] for index in range(9)], None)
    found = task.evaluate(label, prediction, output)
    assert set(task.metrics) | set(task.group_metrics) <= set(found) | {"f1"}
    assert all(math.isfinite(value) for value in found.values())
    assert prediction.shape == (9,)
    assert task.margins(output, prediction[0]).shape == (9,)
    answer = task.answer(prediction[0], output[0])
    assert answer["prediction"] == task.describe(prediction[0])
    assert not task.flips(prediction[0], prediction[0])
    assert isinstance(task.details(label, prediction), dict)


@pytest.mark.parametrize("name", ALL)
def test_the_usual_metric_can_decide(name: str) -> None:
    task = task_of(name)
    for data in ("sst2", "cola", "mrpc", "anything"):
        assert task.deciding_metric("auto", data) in task.metrics
    with pytest.raises(DataError, match=f"does not fit data.task={name}"):
        task.deciding_metric("perplexed", "anything")


@pytest.mark.parametrize("name", ALL)
@given(new=st.floats(-1, 1), old=st.floats(-1, 1), losses=st.tuples(st.floats(0, 9), st.floats(0, 9)))
def test_better_is_an_order(name: str, new: float, old: float, losses: tuple[float, float]) -> None:
    task = task_of(name)
    for metric, higher in task.metrics.items():
        one, other = {metric: new, "loss": losses[0]}, {metric: old, "loss": losses[1]}
        assert task.is_better(metric, one, {})
        assert not (task.is_better(metric, one, other) and task.is_better(metric, other, one))
        if new != old:
            assert task.is_better(metric, one, other) == ((new > old) == higher)


@pytest.mark.parametrize("name", NAMES)
def test_a_head_is_configured_for_it(name: str) -> None:
    task = task_of(name)
    config = transformers.BertConfig(
        vocab_size=30, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
    )
    task.configure(config)
    model = task.model_class().from_config(config)
    logits = model(torch.tensor([[1, 2, 3]])).logits
    assert logits.shape == (1, OUTPUTS[name])
    assert type(tasks.of_model(model)) is type(task)


@pytest.mark.parametrize("name", NAMES)
def test_members_that_agree_do_not_disagree(name: str) -> None:
    task = task_of(name)
    one = torch.randn(1, 5, OUTPUTS[name], generator=torch.Generator().manual_seed(2))
    together, apart = task.pool_members(one.expand(3, -1, -1))
    assert np.allclose(task.output(together).numpy(), task.output(one[0]).numpy(), atol=1e-6)
    assert float(apart.abs().max()) < 1e-6
    assert float(task.member_distance(one.expand(3, -1, -1))) < 1e-6
    assert float(task.pool_members(torch.cat([one, -one]))[1].max()) > 0


@pytest.mark.parametrize("name", NAMES)
def test_labels_of_other_data_are_translated(name: str) -> None:
    task, column = task_of(name), COLUMNS[name]
    other: Any = tasks.build(name, list(reversed(task.labels)))
    assert task.matches(other)
    label = other.encode(column.values, None)
    assert [task.describe(value) for value in task.translate(label, other)] == column.values


def test_the_config_knows_every_task_and_whether_it_has_classes() -> None:
    assert set(TASKS) == {"auto", *ALL}
    assert {name: bool(task_of(name).labels) for name in ALL} == {name: TASKS[name] for name in ALL}
    assert set(GENERATIVE) == {name for name in ALL if issubclass(tasks.registry()[name], tasks.WritingTask)}


def test_a_model_is_made_for_what_its_class_does_whatever_its_config_came_from() -> None:
    config = transformers.LlamaConfig(
        vocab_size=30, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
    )
    config.num_labels, config.architectures = 3, ["LlamaForCausalLM"]
    classifier = transformers.AutoModelForSequenceClassification.from_config(config)
    assert tasks.of_model(classifier).name == "classification"
    assert tasks.of_model(transformers.AutoModelForCausalLM.from_config(config)).name == "causal_lm"
    assert tasks.of_model(torch.nn.Linear(2, 2)).name == "classification"
