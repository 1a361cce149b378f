"""The guard halves the adapters' rate when the loss climbs, leaves calm runs alone, and survives a resume."""

from __future__ import annotations

import numpy as np
import pytest

import dynlora
from dynlora.contracts.harness import MemoryKeeper, make_trainer, same, tiny_config, tiny_model, weights
from dynlora.engine.strategy import PATIENCE, LearningRateBackoff
from dynlora.errors import ConfigError


def watched(losses: np.ndarray, tolerance: float = 0.3) -> LearningRateBackoff:
    """Return a guard that saw these losses."""
    guard = LearningRateBackoff()
    for loss in losses:
        guard.see(float(loss), tolerance)
    return guard


def test_a_falling_noisy_loss_is_left_alone() -> None:
    rng = np.random.default_rng(0)
    losses = 0.3 + 0.4 * np.exp(-np.arange(400) / 60) + 0.1 * rng.standard_normal(400)
    assert watched(losses).factor == 1.0


def test_a_climb_halves_the_rate_once_and_a_further_climb_again() -> None:
    fall, climb = np.linspace(0.7, 0.3, 40), np.linspace(0.3, 0.9, 20)
    assert watched(np.concatenate([fall, climb])).factor == 0.5
    assert watched(np.concatenate([fall, climb, np.full(60, 0.9)])).factor == 0.5
    assert watched(np.concatenate([fall, climb, np.full(20, 0.9), np.linspace(0.9, 1.8, 30)])).factor < 0.5


def test_nothing_is_believed_before_the_average_has_seen_enough() -> None:
    assert watched(np.array([0.1] + [5.0] * (PATIENCE - 2))).factor == 1.0


@pytest.mark.parametrize("strategy", ["lora", "dynamic"])
def test_the_halved_rate_reaches_the_adapters_and_not_the_head(strategy: str) -> None:
    trainer = make_trainer(tiny_config(strategy, strategy={"name": strategy, "lr_backoff": 0.3}, train__lr=1e-2))
    trainer.strategy.rates.factor = 0.25
    keeper = MemoryKeeper()
    trainer.train(keeper)
    *adapters, head = trainer.optimizer.param_groups
    reference = make_trainer(tiny_config(strategy, train__lr=1e-2))
    reference.train(MemoryKeeper())
    *plain, plain_head = reference.optimizer.param_groups
    assert [g["lr"] for g in adapters] == [g["lr"] / 4 for g in plain]
    assert head["lr"] == plain_head["lr"]


def test_a_guarded_run_resumes_bit_equal() -> None:
    strategy = {"name": "lora", "lr_ratio": 64.0, "lr_backoff": 0.05}
    config = tiny_config("lora", strategy=strategy, train__lr=0.1, train__steps=60, log__checkpoint_every=25)
    keeper, whole = MemoryKeeper(), make_trainer(config)
    whole.train(keeper)
    assert whole.strategy.rates.factor < 1, "this run must climb, or the test shows nothing"
    resumed = make_trainer(config, state=keeper.state(25))
    resumed.train(MemoryKeeper())
    assert resumed.strategy.rates.factor == whole.strategy.rates.factor
    assert same(weights(whole), weights(resumed))


def test_a_loop_of_ones_own_has_no_guard() -> None:
    with pytest.raises(ConfigError, match=r"strategy.lr_backoff=0.5: backoff acts in dynlora's own loop"):
        dynlora.attach(tiny_model(), strategy="lora", budget=2, steps=20, lr_backoff=0.5)
