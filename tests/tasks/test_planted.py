"""Planted ranks: the teacher is what its settings say, the error is that of its definition, and it can be learned."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import dynlora
from dynlora import tasks
from dynlora.config import parse_config
from dynlora.errors import ConfigError, CorruptRunError, DataError
from dynlora.tasks.planted import RELATIVE_ERROR, Planted, teaching
from dynlora.training.inputs import Inputs, load_inputs
from tests.conftest import Once
from tests.tiny import tiny_config
from tests.tiny_lm import save_tiny_lm

MODELS = pytest.mark.parametrize("model", ["tiny_bert", "tiny_gpt2", "tiny_writer"])


@pytest.fixture(scope="module")
def tiny_writer(once: Once) -> Path:
    """Folder of a tiny Llama with the head of a language model."""
    return once.made("planted-writer", save_tiny_lm)


def planted(model: Path, data: Path, **data_settings: Any) -> Inputs:
    """Return what a planted run is made of."""
    settings = {f"data__{key}": value for key, value in {"task": "planted", "planted_rank": 2, **data_settings}.items()}
    return load_inputs(tiny_config(model, data, **settings))


def outputs(inputs: Inputs) -> Any:
    """Return the answers of the base model and its teacher to one batch."""
    batch = inputs.encoded("held_out").batch(range(8), torch.device("cpu"))
    inputs.base.model.eval()
    with torch.no_grad():
        return inputs.data.task.forward(inputs.base.model, {k: v for k, v in batch.items() if k != "labels"}), batch


@MODELS
def test_the_teacher_is_the_base_model_with_its_updates_in_the_weights(
    model: str, tiny_data: Path, request: pytest.FixtureRequest
) -> None:
    inputs = planted(request.getfixturevalue(model), tiny_data, planted_modules="2")
    task: Any = inputs.data.task
    before, batch = outputs(inputs)
    modules = dict(inputs.base.model.named_modules())
    assert len(task.truth.sizes) == 2
    with torch.no_grad():
        for name in task.truth.sizes:
            left, right = task.truth.factors(name, modules[name])
            assert torch.linalg.matrix_rank(left @ right) == 2
            change = left @ right if hasattr(modules[name], "out_features") else (left @ right).T
            modules[name].weight += change  # pyright: ignore
        assert before.is_distribution == (model == "tiny_writer")
        after = task.forward(inputs.base.model, {k: v for k, v in batch.items() if k != "labels"})
    assert before.distance(before.student).min() > 0
    assert torch.allclose(after.student, before.teacher, atol=1e-5)
    for answers, error in ((before, 1.0), (after, None)):
        _, output = task.judged(answers, batch["labels"])
        if error is not None:
            assert task.evaluate(None, None, output.numpy())[RELATIVE_ERROR] == pytest.approx(error)


def test_a_teacher_leaves_no_trace_and_is_drawn_again_from_what_a_checkpoint_keeps(
    tiny_bert: Path, tiny_data: Path
) -> None:
    inputs = planted(tiny_bert, tiny_data)
    task: Any = inputs.data.task
    first, _ = outputs(inputs)
    again = tasks.build("planted", (), task.settings())
    assert again == Planted(truth=task.truth)
    second = again.forward(inputs.base.model, {k: v for k, v in outputs(inputs)[1].items() if k != "labels"})
    assert torch.equal(first.teacher, second.teacher)
    assert not any(module._forward_hooks for module in inputs.base.model.modules())


@pytest.mark.parametrize(
    "truth",
    [
        "",
        "{",
        "[]",
        '{"seed": 0}',
        '{"seed": 0, "rank": 1000000000, "sizes": {}}',
        '{"seed": 0, "rank": 1, "sizes": 1}',
    ],
)
def test_a_truth_that_is_none_is_a_damaged_state(truth: str) -> None:
    with pytest.raises(CorruptRunError, match="what was planted cannot be read"):
        tasks.build("planted", (), {"truth": truth})


def test_weights_that_are_kept_in_bf16_are_planted_in(tiny_bert: Path, tiny_data: Path) -> None:
    config = tiny_config(tiny_bert, tiny_data, data__task="planted", model__dtype="bf16", train__precision="auto")
    task: Any = load_inputs(config).data.task
    assert len(task.truth.sizes) == 4


def test_a_step_of_training_asks_for_student_and_teacher_alone(tiny_bert: Path, tiny_data: Path) -> None:
    inputs = planted(tiny_bert, tiny_data)
    batch = inputs.encoded("train").batch(range(2), torch.device("cpu"))
    del batch["labels"]
    answers = inputs.data.task.forward(inputs.base.model.train(), batch)
    assert answers.base is None
    assert all(module.training for module in inputs.base.model.modules())


def test_updates_of_one_group_leave_the_base_model_as_the_teacher_of_the_others(
    tiny_bert: Path, tiny_data: Path
) -> None:
    inputs = planted(tiny_bert, tiny_data, planted_group="long", group_by="domain")
    task: Any = inputs.data.task
    again = tasks.build("planted", (), task.settings())
    answers, batch = outputs(inputs)
    acts = np.array(inputs.data.held_out.group)[:8] == "long"
    assert batch["labels"].numpy().tolist() == acts.astype(int).tolist()
    assert 0 < acts.sum() < 8
    for one in (task, again):
        loss, output = one.judged(answers, batch["labels"])
        assert (loss.numpy() > 0).tolist() == acts.tolist()  # the untrained model is right wherever nothing acts
        assert one.evaluate(acts, acts, output.numpy())[RELATIVE_ERROR] == pytest.approx(1.0)
        assert math.isnan(one.evaluate(acts, acts, output.numpy()[~acts])[RELATIVE_ERROR])
        assert torch.equal(one.example_loss(answers, batch["labels"]), loss)


@pytest.mark.parametrize(("group_by", "groups"), [("domain", "groups are long, short"), ("none", "set data.group_by")])
def test_a_group_without_examples_is_refused(group_by: str, groups: str, tiny_bert: Path, tiny_data: Path) -> None:
    with pytest.raises(DataError, match=f"data.planted_group=nowhere: no example is in this input group; {groups}"):
        planted(tiny_bert, tiny_data, planted_group="nowhere", group_by=group_by)


@MODELS
def test_a_card_names_the_class_that_loads_the_model(
    model: str, tiny_data: Path, request: pytest.FixtureRequest
) -> None:
    inputs = planted(request.getfixturevalue(model), tiny_data)
    assert inputs.data.task.loader(inputs.base.model) == (
        "AutoModelForCausalLM" if model == "tiny_writer" else "AutoModel"
    )


def test_each_update_alone_moves_the_output_as_far_as_the_others(tiny_bert: Path, tiny_data: Path) -> None:
    inputs = planted(tiny_bert, tiny_data, planted_modules="3")
    truth = inputs.data.task.truth  # pyright: ignore
    batch = inputs.encoded("train").batch(range(64), torch.device("cpu"))
    model = inputs.base.model.eval()
    moved = []
    for name in truth.sizes:
        with torch.no_grad(), teaching(model, truth.model_copy(update={"sizes": {name: truth.sizes[name]}})):
            teacher = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).last_hidden_state
        with torch.no_grad():
            base = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).last_hidden_state
        moved.append(float((teacher - base).square().sum()))
    assert max(moved) < 1.5 * min(moved)  # they were measured on other texts


@pytest.mark.parametrize(
    ("modules", "count"), [("2", 2), ("query", 2), ("layer.1", 6), ("query, layer.0.output.dense", 3)]
)
def test_modules_are_a_number_or_parts_of_names(modules: str, count: int, tiny_bert: Path, tiny_data: Path) -> None:
    assert len(planted(tiny_bert, tiny_data, planted_modules=modules).data.task.truth.sizes) == count  # pyright: ignore


@pytest.mark.parametrize("modules", ["0", "99", "nowhere", "²", " , "])
def test_modules_that_are_not_there_are_refused(modules: str, tiny_bert: Path, tiny_data: Path) -> None:
    with pytest.raises(ConfigError, match=f"data.planted_modules={modules}: .*; give"):
        planted(tiny_bert, tiny_data, planted_modules=modules)


@pytest.mark.parametrize("model", ["tiny_bert", "tiny_writer"])
def test_a_run_learns_the_teacher_and_keeps_the_truth(
    model: str, tiny_data: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    folder = request.getfixturevalue(model)
    data = {"task": "planted", "planted_rank": 1, "planted_modules": "2", "planted_strength": 5.0}
    settings: dict[str, Any] = {f"data__{key}": value for key, value in data.items()}
    config = tiny_config(folder, tiny_data, **settings, train__lr=1e-3, train__steps=40, strategy={"name": "lora"})
    summary: Any = dynlora.train(config, tmp_path, progress=False).summary
    assert summary["metrics"][RELATIVE_ERROR] < 0.9
    truth = summary["task_facts"]["planted"]
    assert (len(truth["sizes"]), truth["rank"]) == (2, 1)


def test_the_data_set_has_its_task_however_it_is_named() -> None:
    for data in ({"name": "planted"}, {"name": "planted", "task": "auto"}, {"task": "planted"}):
        section = parse_config({"data": data}).data
        assert (section.name, section.task) == ("planted", "planted")
    assert parse_config({"data": {"name": "planted", "task": "causal_lm"}}).data.task == "causal_lm"
