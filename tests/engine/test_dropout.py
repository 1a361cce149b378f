"""Dropout by positions: the law of the draw, its keys, and the module that stands for `nn.Dropout`."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils.checkpoint import checkpoint

from dynlora.contracts.harness import make_trainer, tiny_config, tiny_model
from dynlora.engine.model.lowrank_function import (
    DropoutStreams,
    SparseDropout,
    dropped_positions,
    use_sparse_dropout,
    zero_,
)


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**62), st.integers(1, 3000), st.floats(1e-4, 0.9999))
def test_positions_ascend_and_lie_inside(seed: int, n: int, probability: float) -> None:
    positions = dropped_positions(seed, n, probability).numpy()
    assert (np.diff(positions) > 0).all()
    assert len(positions) == 0 or (positions[0] >= 0 and positions[-1] < n)
    assert np.array_equal(positions, dropped_positions(seed, n, probability).numpy())


@pytest.mark.parametrize("probability", [0.05, 0.1, 0.5, 0.9])
def test_entries_are_dropped_independently_at_the_asked_rate(probability: float) -> None:
    n, draws = 4000, 200
    dropped = np.zeros((draws, n), bool)
    for seed in range(draws):
        dropped[seed, dropped_positions(seed, n, probability).numpy()] = True
    deviation = (probability * (1 - probability) / dropped.size) ** 0.5
    assert abs(dropped.mean() - probability) < 4 * deviation
    both = (dropped[:, 1:] & dropped[:, :-1]).mean()
    assert abs(both - probability**2) < 5 * probability / dropped.size**0.5
    per_entry = dropped.mean(0)  # the first and last entries are as likely as any
    assert abs(per_entry[:20].mean() - probability) < 4 * (probability * (1 - probability) / (20 * draws)) ** 0.5
    assert abs(per_entry[-20:].mean() - probability) < 4 * (probability * (1 - probability) / (20 * draws)) ** 0.5


def test_streams_are_keyed_and_masks_say_the_same() -> None:
    streams, x = DropoutStreams(0), torch.randn(8, 50)
    first = streams.dropped("a", x, 0.2)
    assert torch.equal(first, streams.dropped("a", x, 0.2))
    assert not torch.equal(streams.mask("a", x, 0.8), streams.mask("b", x, 0.8))
    assert torch.equal((~streams.mask("a", x, 0.8)).view(-1).nonzero().view(-1), first)
    streams.at(1)
    assert not torch.equal(streams.mask("a", x, 0.8), zero_(torch.ones(8, 50, dtype=torch.bool), first))


def test_sparse_dropout_is_dropout() -> None:
    module = SparseDropout(0.25)
    x = torch.randn(40, 30).t().requires_grad_()  # not contiguous
    torch.manual_seed(3)
    out = module(x)
    out.sum().backward()
    kept = out != 0
    assert 0.6 < kept.float().mean() < 0.9
    assert torch.allclose(out[kept], x[kept] / 0.75)
    assert torch.equal(x.grad != 0, kept)
    assert torch.allclose(x.grad[kept], torch.tensor(1 / 0.75))
    torch.manual_seed(3)
    assert torch.equal(module(x), out)
    assert not torch.equal(module(x), out)
    assert torch.equal(module.eval()(x), x)


def test_a_block_that_is_run_again_drops_the_same() -> None:
    module, x = SparseDropout(0.5), torch.randn(20, 10, requires_grad=True)
    out = checkpoint(module, x, use_reentrant=False)
    out.sum().backward()
    assert torch.equal(x.grad != 0, out != 0)


def test_an_adapted_model_draws_sparsely_and_saves_the_same() -> None:
    model = tiny_model("bert")
    names = set(model.state_dict())
    use_sparse_dropout(model)
    assert set(model.state_dict()) == names
    assert not any(type(module) is nn.Dropout for module in make_trainer(tiny_config("lora")).model.modules())
