"""Memory of an adapter follows its rank: the same training, nothing held that is not live, old checkpoints go on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from torch import nn

from dynlora.engine.edits.components import give_back
from dynlora.engine.loop.checkpoint import load_optimizer_state
from dynlora.engine.loop.trainer import Trainer
from dynlora.engine.model.lora_linear import LoraLinear, resized
from dynlora.engine.model.modules import ModuleInfo
from dynlora.engine.recorder import NullRecorder
from dynlora.store import queries
from dynlora.training import run
from dynlora.training.build import build_trainer, make_accelerator
from dynlora.training.inputs import load_inputs
from tests.tiny import tiny_config
from tests.training.interrupted import interrupted_run

MOVES = {"name": "dynamic", "moves": 4, "warmup_steps": 4, "allocate_every": 3, "final_steps": 2, "min_rank": 0}


def trainer_of(model: Path, data: Path, **strategy: Any) -> Trainer:
    """Return a trainer whose ranks move often."""
    config = tiny_config(model, data, adapter__rank=3, strategy={**MOVES, **strategy})
    return build_trainer(load_inputs(config), NullRecorder(), make_accelerator())


def ranks_and_losses(trainer: Trainer) -> tuple[list[list[int]], list[float]]:
    """Train to the end; return ranks and loss of each step."""
    order, _ = trainer.begin()
    trainer.model.train()
    ranks, losses = [], []
    for _ in range(trainer.total):
        loss, _ = trainer._advance(order)
        trainer._clear_gradients()
        ranks.append(trainer.adapters.ranks)
        losses.append(float(loss))
        for module in trainer.adapters:
            check(trainer, module)
    return ranks, losses


def check(trainer: Trainer, module: LoraLinear) -> None:
    """Every tensor and moment has the room that is held, which is the rank where the module does so."""
    assert module.held == (module.rank if module.holds_live else module.max_rank)
    for parameter, dim in module.component_parts():
        assert parameter.shape[dim] == module.held
        for value in trainer.optimizer.state.get(parameter, {}).values():
            assert value.dim() == 0 or value.shape == parameter.shape


@pytest.mark.parametrize("strategy", [{}, {"gates": "rank"}, {"allocation": "both"}])
def test_training_is_the_same_with_all_room_held(
    tiny_bert: Path, tiny_data: Path, monkeypatch: pytest.MonkeyPatch, strategy: dict[str, str]
) -> None:
    lean = trainer_of(tiny_bert, tiny_data, **strategy)
    assert any(module.holds_live for module in lean.adapters)
    assert lean.adapters.adapter_parameter_count()["allocated"] == sum(
        module.held * module.info.cost + (module.scale_logit is not None) for module in lean.adapters
    )
    curves = ranks_and_losses(lean)
    monkeypatch.setattr(LoraLinear, "hold_live", lambda _: None)
    roomy = trainer_of(tiny_bert, tiny_data, **strategy)
    assert not any(module.holds_live for module in roomy.adapters)
    ranks, losses = ranks_and_losses(roomy)
    assert curves[0] == ranks
    assert curves[1] == pytest.approx(losses, abs=1e-5)
    assert len({tuple(row) for row in ranks}) > 3, "ranks moved"


@pytest.mark.parametrize("strategy", ["diffora", "elalora", "gelora", "l1ra", "sora"])
def test_methods_that_keep_tensors_of_their_own_keep_all_room(tiny_bert: Path, tiny_data: Path, strategy: str) -> None:
    config = tiny_config(tiny_bert, tiny_data, adapter__rank=3, strategy={"name": strategy})
    trainer = build_trainer(load_inputs(config), NullRecorder(), make_accelerator())
    assert not any(module.holds_live for module in trainer.adapters)
    ranks_and_losses(trainer)
    assert trainer.step == trainer.total


def test_moments_with_more_room_or_less_are_taken_over(tiny_bert: Path, tiny_data: Path) -> None:
    trainer = trainer_of(tiny_bert, tiny_data)
    order, _ = trainer.begin()
    for _ in range(6):
        trainer.probe_step(order)
    parameters = [parameter for group in trainer.optimizer.param_groups for parameter in group["params"]]
    now = [dict(trainer.optimizer.state[parameter]) for parameter in parameters]
    wide = {id(module.lora_A): module for module in trainer.adapters}
    before = [
        {
            name: resized(value, 0, wide[id(parameter)].max_rank) if value.dim() and id(parameter) in wide else value
            for name, value in state.items()
        }
        for parameter, state in zip(parameters, now, strict=True)
    ]
    load_optimizer_state(trainer.optimizer, before)
    for parameter, state in zip(parameters, now, strict=True):
        for name, value in state.items():
            torch.testing.assert_close(trainer.optimizer.state[parameter][name], value, rtol=0, atol=0)


def test_a_module_at_its_highest_rank_gives_memory_back_once_it_drops() -> None:
    """A resume that began there held more than the run that nobody disturbed: `grad_norm` differed in the last bit."""
    info = ModuleInfo("block.0.linear", 0, "linear", 6, 5)
    module = LoraLinear(nn.Linear(6, 5), info, rank=4, max_rank=4, scaling=1.0)
    module.hold_live()
    module.rank = 3
    give_back([module], None)
    assert module.held == 3


@pytest.mark.slow
def test_a_resume_from_the_highest_rank_records_the_same_numbers(
    tiny_bert: Path, tiny_data: Path, runs_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny_config(
        tiny_bert,
        tiny_data,
        adapter__rank=4,
        strategy={**MOVES, "growth_limit": 1.25},
        train__steps=20,
        log__eval_every=2,
        log__checkpoint_every=2,
    )
    whole = run.train(config, runs_dir / "whole").folder
    resumed = interrupted_run(config, runs_dir / "resumed", monkeypatch, step=8)
    run.resume(resumed.parent, resumed.name)
    assert _gradient_norms(whole).equals(_gradient_norms(resumed))
    assert _optimizer_bytes(whole) == _optimizer_bytes(resumed)
    assert len(set(_optimizer_bytes(whole))) > 2, "ranks moved"


def _gradient_norms(folder: Path) -> pd.DataFrame:
    return queries.heatmap(folder, "grad_norm", 1000).frame


def _optimizer_bytes(folder: Path) -> list[float]:
    table = queries.scalars_frame(folder)
    return list(table[table["name"] == "optimizer_bytes"]["value"])
