"""The look before a run: it refuses what training refuses, takes what training takes, and its cost has a bound."""

from __future__ import annotations

import logging
import time
from pathlib import Path

import pytest
import torch

import dynlora
from dynlora import strategies
from dynlora.errors import DynloraError
from dynlora.training import preflight as training_preflight
from dynlora.training.build import MOST_CALIBRATED
from dynlora.training.preflight import preflight
from tests.tiny import tiny_config

SEARCH = {"glora": {"population": 4, "rounds": 1, "kept": 2}}
"""A short search: each of its candidates is a pass over the reserved rows."""


@pytest.mark.parametrize(
    ("name", "steps"),
    [
        pytest.param(name, steps, marks=() if (at + steps) % 2 == 0 else pytest.mark.torture)
        for at, name in enumerate(sorted(strategies.registry()))
        for steps in (1, 2)
    ],
)
def test_every_method_is_looked_at_with_the_fewest_steps(
    name: str, steps: int, tiny_bert: Path, tiny_data: Path
) -> None:
    few = {"data__max_train": 40, "data__max_eval": 16}  # glora searches, and eva calibrates, on all of them
    report = preflight(
        tiny_config(tiny_bert, tiny_data, train__steps=steps, strategy={"name": name} | SEARCH.get(name, {}), **few)
    )
    assert report["schedule"]["steps"] == steps


def test_a_step_of_any_size_is_checked_on_a_few_rows(
    tiny_bert: Path, tiny_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    forward = torch.nn.Embedding.forward
    monkeypatch.setattr(torch.nn.Embedding, "forward", lambda self, ids: sizes.append(len(ids)) or forward(self, ids))
    start = time.process_time()
    report = preflight(tiny_config(tiny_bert, tiny_data, train__batch_size=65_536, train__grad_accum=4096))
    assert time.process_time() - start < 20
    assert max(sizes) <= max(training_preflight.EVALUATED, MOST_CALIBRATED)
    assert "A step has 268,435,456 examples; memory and time were checked on 32 and scaled." in report["warnings"]


def test_the_estimate_of_a_part_is_near_that_of_the_whole(
    tiny_bert: Path, tiny_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny_config(tiny_bert, tiny_data, train__batch_size=64, train__grad_accum=2)
    whole = preflight(config)
    monkeypatch.setattr(training_preflight, "MOST_PROBED", 100)
    part = preflight(config)
    assert part["memory_mib"]["total"] == pytest.approx(whole["memory_mib"]["total"], rel=0.3)
    assert not any("were checked on" in sentence for sentence in whole["warnings"])


def test_numbers_that_are_not_finite_at_the_start_name_the_settings(
    tiny_bert: Path, tiny_data: Path, runs_dir: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = tiny_config(tiny_bert, tiny_data, adapter__alpha=1e9)
    forward = strategies.strategy_class(values.strategy.name).forward
    monkeypatch.setattr(
        strategies.strategy_class(values.strategy.name), "forward", lambda self, *of: forward(self, *of) * torch.nan
    )
    message = (
        r"the loss of the model on held-out examples is not finite at step 0.*; change adapter\.alpha=1000000000\.0"
    )
    with pytest.raises(DynloraError, match=message):
        preflight(values)
    with caplog.at_level(logging.INFO), pytest.raises(DynloraError, match=message):
        dynlora.train(values, runs_dir, progress=False)
    assert "Traceback" not in caplog.text


def test_a_first_step_that_is_not_finite_blames_no_learning_rate(
    tiny_bert: Path, tiny_data: Path, runs_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = tiny_config(tiny_bert, tiny_data, model__dropout=0.5)
    method = strategies.strategy_class(values.strategy.name)
    loss = method.loss
    monkeypatch.setattr(method, "loss", lambda self, *of: loss(self, *of) * torch.nan)
    with pytest.raises(DynloraError, match=r"the loss of the first step is nan.*change model\.dropout=0\.5"):
        dynlora.train(values, runs_dir, progress=False)


def test_an_error_of_the_model_before_the_first_step_is_one_sentence(
    tiny_bert: Path, tiny_data: Path, runs_dir: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = tiny_config(tiny_bert, tiny_data)

    def broken(*_: object) -> None:
        raise IndexError("of a model")

    monkeypatch.setattr(strategies.strategy_class(values.strategy.name), "forward", broken)
    with caplog.at_level(logging.INFO), pytest.raises(DynloraError, match=r"cannot be trained with .*IndexError: of a"):
        dynlora.train(values, runs_dir, progress=False)
    assert not [record for record in caplog.records if record.exc_info]


def test_a_long_schedule_is_printed_short(tiny_bert: Path, tiny_data: Path) -> None:
    report = preflight(tiny_config(tiny_bert, tiny_data, train__steps=900, log__eval_every=2))
    assert report["schedule"]["evaluations"] == list(range(0, 901, 2))
    assert "evaluations after steps 0 to 900 (449 between)" in training_preflight.format_preflight(report)


def test_dropout_near_1_does_not_hide_where_gates_can_be(tiny_bert: Path, tiny_data: Path) -> None:
    values = tiny_config(
        tiny_bert, tiny_data, model__dropout=0.9999999, strategy={"name": "dynamic", "gates": "module"}
    )
    assert preflight(values)["modules"] > 0
