"""What a run leaves behind beside its weights: losses row by row, the base model's answers, the machine's readings."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
import torch

from dynlora.contracts.harness import ListRecorder, MemoryKeeper, make_trainer, tiny_config
from dynlora.engine.allocation import scores
from dynlora.engine.context import Step
from dynlora.engine.edits import Edit
from dynlora.engine.model.adapters import Adapters
from dynlora.tasks.labels import calibration_metrics
from dynlora.training.progress_stream import Readings


def test_every_evaluation_keeps_the_loss_and_answer_of_each_row() -> None:
    recorder = ListRecorder()
    trainer = make_trainer(tiny_config("lora"), recorder=recorder)
    trainer.train(MemoryKeeper())
    loss, answer = recorder.vectors["held_out_loss"], recorder.vectors["held_out_prediction"]
    assert sorted(loss) == sorted(answer) == [0, 10, 20]
    assert loss[20].mean() == np.float32(recorder.scalars["loss", "validation"][20])
    assert list(recorder.vectors["held_out_label"]) == [0]
    right = answer[20] == recorder.vectors["held_out_label"][0]
    assert right.mean() == recorder.scalars["accuracy", "validation"][20]


def test_the_last_evaluation_keeps_what_the_head_says_without_adapters() -> None:
    recorder = ListRecorder()
    trainer = make_trainer(tiny_config("dynamic", strategy={"name": "dynamic"}), recorder=recorder)
    trainer.train(MemoryKeeper())
    assert list(recorder.vectors["base_loss"]) == [20]
    for module in trainer.adapters:
        module.lora_B.data.zero_()
    without = trainer.predictions(trainer.evaluation.tokens.take(trainer.evaluation.probe))
    assert np.allclose(recorder.vectors["base_loss"][20], without.loss, atol=1e-6)
    assert not np.allclose(recorder.vectors["base_loss"][20], recorder.vectors["probe_loss"][20], atol=1e-4)


def test_the_tokens_of_each_step_are_counted_without_padding() -> None:
    recorder = ListRecorder()
    trainer = make_trainer(tiny_config("lora", train__steps=12, train__batch_size=8), recorder=recorder)
    trainer.train(MemoryKeeper())
    read = recorder.scalars["tokens", "train"]
    assert sorted(read) == list(range(1, 13))
    assert sum(read.values()) == trainer.tokens.length.sum()  # 12 batches of 8 are the 96 rows, once each


class _Kept:
    def __init__(self) -> None:
        self.values: list[Mapping[str, float]] = []

    def system(self, values: Mapping[str, float]) -> None:
        self.values.append(values)


def test_the_machine_is_read_when_that_is_due() -> None:
    kept = _Kept()
    readings = Readings(kept, every_s=1000)
    assert [readings.take(), readings.take()] == [True, False]
    assert len(kept.values) == 1
    assert kept.values[0]["rss_mib"] > 10
    assert kept.values[0]["cpu_percent"] >= 0


@pytest.mark.parametrize("name", ["sora", "l1ra", "beamlora", "diffora", "xgblora", "aslora"])
def test_importance_at_an_event_is_that_of_the_components_before_it(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Edits pack, copy and fold weights; their gradients stay where they were."""
    recorder, seen = ListRecorder(), {}
    trainer = make_trainer(tiny_config(name, train__lr=2e-2, adapter__rank=4), recorder=recorder)
    allocate = trainer.strategy.allocate

    def weighed_first(adapters: Adapters, step: Step) -> list[Edit]:
        widest = torch.zeros(len(adapters), max(module.max_rank for module in adapters))
        seen[step.index] = scores.component_sensitivity(adapters.modules, widest).sum(1).numpy()
        return allocate(adapters, step)

    monkeypatch.setattr(trainer.strategy, "allocate", weighed_first)
    trainer.train(MemoryKeeper())
    for step, worth in seen.items():
        np.testing.assert_array_equal(recorder.vectors["importance"][step], worth)
    assert any(kind == "reallocate" for _, kind, _, _ in recorder.events)


def test_each_group_has_its_calibration() -> None:
    recorder = ListRecorder()
    trainer = make_trainer(tiny_config("lora"), recorder=recorder)
    trainer.train(MemoryKeeper())
    predictions = trainer.predictions(trainer.evaluation.tokens)
    group, label = trainer.evaluation.group, trainer.evaluation.tokens.label
    for name in ("ece", "brier"):
        by_group = [calibration_metrics(label[group == g], predictions.output[group == g])[name] for g in (0, 1)]
        assert recorder.axes[f"group_{name}"] == "group"
        assert sorted(recorder.vectors[f"group_{name}"]) == [0, 10, 20]
        np.testing.assert_allclose(recorder.vectors[f"group_{name}"][20], by_group, rtol=1e-6)
