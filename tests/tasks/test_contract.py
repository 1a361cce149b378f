"""Which task data has, and what tasks with and without labels share; `dynlora.contracts` tries those with labels."""

from __future__ import annotations

import typing
from typing import Any

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

ON_REQUEST = {"planted": ["text"]}
"""Columns of data for tasks that no column shows."""


def chosen(wanted: str, names: list[str], column: LabelColumn, text: str | None = None) -> Task:
    """Return the task of a table with these columns."""
    columns = resolved(names, Columns(text, None, "label", None))
    return tasks.choose(wanted, DataConfig(path="x"), columns, lambda: column)  # pyright: ignore[reportCallIssue]


def task_of(name: str) -> Any:
    if name not in NAMES:
        return chosen(name, ON_REQUEST.get(name) or TABLES[name][0], LabelColumn("label", [], [], None))
    return chosen(name, ["text", "label"], example(name))


def example(name: str) -> LabelColumn:
    kind = tasks.registry()[name]
    assert issubclass(kind, tasks.LabelledTask)
    return kind.example


def test_every_task_is_tried_here_and_named_in_the_config() -> None:
    assert {name for name in ALL if name not in NAMES} <= {*TABLES, *ON_REQUEST}
    assert sorted(typing.get_args(DataConfig.model_fields["task"].annotation)) == sorted(["auto", *ALL])


@pytest.mark.parametrize(("name", "names"), [(name, names) for name, several in TABLES.items() for names in several])
def test_columns_show_the_task_where_labels_do_not_decide(name: str, names: list[str]) -> None:
    text = "text" if "stars" in names or names == ["messages", "label"] else None
    assert chosen("auto", names, example("classification"), text).name == name


@pytest.mark.parametrize("name", GENERATIVE)
def test_a_checkpoint_brings_back_a_task_without_labels(name: str) -> None:
    task = task_of(name)
    assert task.settings()
    assert tasks.build(task.name, list(task.labels), task.settings()) == task


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
