"""Reserved rows: nobody trains on them, they are the same after a resume, and batches go round them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dynlora.contracts.harness import make_trainer, tiny_config, tiny_tokens
from dynlora.engine.data.held_back import set_apart


@settings(max_examples=50, deadline=None)
@given(st.integers(2, 96), st.floats(0.001, 0.999), st.integers(0, 1000))
def test_rows_are_trained_on_or_reserved_and_never_both(n: int, share: float, seed: int) -> None:
    tokens = tiny_tokens().take(np.arange(n))
    train, reserve = set_apart(tokens, share, seed)
    seen = [tuple(row["input_ids"]) for part in (train, reserve) for row in part.features]
    assert sorted(seen) == sorted(tuple(row["input_ids"]) for row in tokens.features)
    assert len(train) >= 1
    assert len(reserve) >= 1
    again = set_apart(tokens, share, seed)[1]
    assert [row["input_ids"] for row in again.features] == [row["input_ids"] for row in reserve.features]


def test_no_share_reserves_nothing() -> None:
    train, reserve = set_apart(tiny_tokens(), 0.0, 0)
    assert train is tiny_tokens()
    assert len(reserve) == 0


def test_batches_go_round_the_reserve_and_the_loss_is_its_mean() -> None:
    trainer = make_trainer(tiny_config("lora"))
    held_back = trainer.strategy.held_back
    object.__setattr__(held_back, "reserve", tiny_tokens().take(np.arange(12)))
    labels = np.concatenate([held_back.batch(number)["labels"].numpy() for number in range(3)])
    expected = tiny_tokens().label[:12]
    assert labels.tolist() == [*expected, *expected[:12]][: len(labels)]
    trainer.model.train()
    whole = trainer.predictions(tiny_tokens().take(np.arange(12))).loss
    assert held_back.reserve_loss() == pytest.approx(float(whole.mean()), rel=1e-5), "each row once"
    assert held_back.reserve_loss(batches=1) == pytest.approx(float(whole[:8].mean()), rel=1e-5)
    assert trainer.model.training
    assert held_back.batch_loss(held_back.batch(0)).requires_grad
    assert torch.isfinite(held_back.batch_loss(held_back.batch(0)))
