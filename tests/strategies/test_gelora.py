"""GeLoRA: the estimator on manifolds whose dimension is known, and the ranks it leads to."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from dynlora import attach, strategies
from dynlora.contracts.harness import (
    ListRecorder,
    MemoryKeeper,
    make_trainer,
    same,
    tiny_config,
    tiny_model,
    tiny_tokens,
)
from dynlora.contracts.harness import weights as weights_of
from dynlora.engine.model.modules import ModuleInfo
from dynlora.errors import ConfigError
from dynlora.strategies.gelora import intrinsic_dimension, layer_states


def gelora(**fields: Any) -> dict[str, Any]:
    """Return the strategy's settings."""
    return {"name": "gelora", **fields}


def cloud(k: int, n: int = 1500, width: int = 24, seed: int = 0) -> Tensor:
    """Return n points of a k-dimensional normal law, laid into `width` dimensions at random."""
    draw = torch.Generator().manual_seed(seed)
    frame = torch.linalg.qr(torch.randn(width, width, generator=draw, dtype=torch.float64)).Q[:k]
    return torch.randn(n, k, generator=draw, dtype=torch.float64) @ frame


def dimension(points: Tensor, discard: float = 0.1) -> float:
    """Return the estimate."""
    estimate = intrinsic_dimension(points, discard)
    assert estimate is not None
    return estimate.value


@pytest.mark.parametrize("discard", [0.0, 0.1, 0.3])
@pytest.mark.parametrize("k", [1, 2, 5])
def test_known_manifolds(k: int, discard: float) -> None:
    estimate = intrinsic_dimension(cloud(k), discard)
    assert estimate is not None
    assert estimate.value == pytest.approx(k, rel=0.1)
    kept = math.floor((1 - discard) * estimate.points)
    assert estimate.error == pytest.approx(estimate.value / math.sqrt(kept - 2))


def test_estimate_by_hand() -> None:
    # six pairs of neighbours at distance 1, each pair 2, 4, ... from the next: every r1 is 1, r2 the way to a pair
    places = [0.0, 1.0]
    for gap in (2.0, 4.0, 8.0, 16.0, 32.0):
        places += [places[-1] + gap, places[-1] + gap + 1]
    estimate = intrinsic_dimension(torch.tensor(places).unsqueeze(1), discard=0.25)
    r2 = [3, 2, 2, 3, 4, 5, 8, 9, 16, 17, 32, 33]  # to the nearer one of the neighbouring pairs
    logs = sorted(math.log(value) for value in r2)
    assert estimate is not None
    assert estimate.points == 12
    assert estimate.value == pytest.approx(8 / (sum(logs[:9]) + 3 * logs[8]))


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 99), scale=st.floats(1e-3, 1e3), shift=st.floats(-10, 10))
def test_rotation_scale_shift_and_copies_change_nothing(seed: int, scale: float, shift: float) -> None:
    points = cloud(3, n=120, width=6, seed=seed)
    turn = torch.linalg.qr(torch.randn(6, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)).Q
    expected = dimension(points)
    assert dimension(points @ turn * scale + shift) == pytest.approx(expected, rel=1e-6)
    copies = torch.cat([points, points[::2], points[:7] * (1 + 1e-9)])
    assert dimension(copies) == pytest.approx(expected, rel=1e-6)
    assert dimension(points) == expected


def test_nothing_is_said_of_too_few_or_broken_points() -> None:
    assert intrinsic_dimension(torch.randn(9, 3)) is None
    assert intrinsic_dimension(torch.zeros(50, 3)) is None
    assert intrinsic_dimension(torch.full((50, 3), float("nan"))) is None


def test_states_are_means_over_tokens_of_different_rows() -> None:
    model, tokens = tiny_model().train(), tiny_tokens()
    first, again = tokens.batch(range(6)), tokens.batch([4, 5, 6, 7])
    states = layer_states(model, [first, again, tokens.batch(range(20, 40))], rows=8)
    assert len(states) == 3
    assert {len(state) for state in states} == {8}
    assert model.training
    model.eval()
    alone = {name: tensor[:, : int(tokens.length[7])] for name, tensor in tokens.batch([7]).items() if name != "labels"}
    with torch.no_grad():
        expected = [state.mean(1) for state in model(**alone, output_hidden_states=True).hidden_states]
    for state, one in zip(states, expected, strict=True):
        assert torch.allclose(state[7], one[0], atol=1e-5)


@pytest.mark.parametrize("architecture", ["bert", "llama", "gpt2"])
def test_what_leaves_the_last_block_is_taken_before_the_last_norm(architecture: str) -> None:
    model, batch = tiny_model(architecture).eval(), tiny_tokens().batch(range(4))
    inner = model.base_model
    blocks = {"bert": lambda: inner.encoder.layer, "llama": lambda: inner.layers, "gpt2": lambda: inner.h}[
        architecture
    ]()
    seen = []
    hook = blocks[-1].register_forward_hook(lambda module, inputs, output: seen.append(output))
    states = layer_states(model, [batch], rows=8)
    hook.remove()
    (output,) = seen
    output = output[0] if isinstance(output, tuple) else output
    mask = batch["attention_mask"].unsqueeze(-1)
    torch.testing.assert_close(states[-1], (output * mask).sum(1) / mask.sum(1))
    assert len(states) == 3
    hooks = len(blocks[-1]._forward_hooks)  # transformers keeps one of its own
    layer_states(model, [batch], rows=8)
    assert len(blocks[-1]._forward_hooks) == hooks
    if architecture != "bert":
        normed = (inner(**{k: v for k, v in batch.items() if k != "labels"}).last_hidden_state * mask).sum(
            1
        ) / mask.sum(1)
        assert not torch.allclose(states[-1], normed, atol=1e-3)


def planned(dimensions: list[float], **fields: Any) -> tuple[list[int], list[ModuleInfo]]:
    """Return the ranks of three blocks of two modules for these dimensions, at the budget of rank 4."""
    strategy: Any = strategies.build("gelora", fields)
    strategy.dimension = dimensions
    infos = [ModuleInfo(f"{layer}.{kind}", layer, kind, 10, 10) for layer in range(3) for kind in ("q", "v")]
    return strategy.asked_for(infos, 4 * 6 * 20, [10] * 6), infos


def test_ranks_by_hand() -> None:
    # growth 2.6 -> 3, -1 -> 0, 0.4 -> 0: ranks 4, 1, 1 before scaling
    assert planned([3.0, 5.6, 4.6, 5.0], normalise=False)[0] == [4, 4, 1, 1, 1, 1]
    # 24 components in proportion 4 : 1 : 1 are 8, 2, 2
    assert planned([3.0, 5.6, 4.6, 5.0])[0] == [8, 8, 2, 2, 2, 2]
    # what is asked for never exceeds the budget: 11, 1, 1 would be 26 components
    assert sum(planned([0.0, 10.0, 10.0, 20.0], normalise=False)[0]) <= 24
    # nothing known: even
    assert planned([])[0] == [4] * 6
    # a dimension that is not known says nothing of the blocks beside it: growth -, -, 3
    assert planned([3.0, float("nan"), 4.0, 7.0], normalise=False)[0] == [1, 1, 1, 1, 4, 4]


def test_dimensions_are_recorded_by_module() -> None:
    recorder = ListRecorder()
    trainer = make_trainer(tiny_config("gelora"), recorder=recorder)
    before, first, second = trainer.strategy.dimension
    trainer.train(MemoryKeeper())
    dimensions = recorder.vectors["dimension"][20]
    layers = np.array([module.info.layer for module in trainer.adapters])
    assert np.allclose(dimensions, np.array([first, second])[layers])
    assert np.allclose(recorder.vectors["dimension_growth"][3], np.array([first - before, second - first])[layers])
    assert (recorder.vectors["dimension_error"][20] > 0).all()


def test_estimates_while_training_move_rank_within_the_budget_and_resume() -> None:
    config = tiny_config("gelora", strategy=gelora(estimate_every=5), train__lr=2e-2)
    keeper, recorder = MemoryKeeper(), ListRecorder()
    trainer = make_trainer(config, recorder=recorder, tokens=tiny_tokens(400))
    assert len(trainer.strategy.held_back.reserve) == 40
    trainer.train(keeper)
    assert len({tuple(v) for v in recorder.vectors["dimension"].values()}) == 3  # the start, after 5, after 10 steps
    resumed = make_trainer(config, state=keeper.state(5), tokens=tiny_tokens(400), model=tiny_model())
    resumed.train(MemoryKeeper())
    assert same(weights_of(trainer), weights_of(resumed))


def test_an_estimate_that_asks_for_other_ranks_moves_them(monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = ListRecorder()
    trainer = make_trainer(tiny_config("gelora", strategy=gelora(estimate_every=5)), recorder=recorder)

    def grows(model: Any, batches: Any) -> None:
        trainer.strategy.dimension, trainer.strategy.error = [1.0, 4.0, 4.0], [0.1] * 3

    monkeypatch.setattr(trainer.strategy, "estimate", grows)
    trainer.train(MemoryKeeper())
    ranks = [module.rank for module in trainer.adapters]
    assert min(ranks[:6]) >= 3  # 4 : 1 before scaling, of 2 : 2
    assert max(ranks[6:]) <= 1
    assert [step for step, kind, _, _ in recorder.events if kind == "reallocate"] == [5]
    count = trainer.adapters.adapter_parameter_count()
    assert count["active"] <= count["budget"]


def test_a_distance_that_leaves_no_estimate_is_refused() -> None:
    with pytest.raises(ConfigError, match="estimate_every"):
        strategies.build("gelora", {"estimate_every": 15}).check(20, 2)
    rows = [tiny_tokens().batch(range(32))]
    with pytest.raises(ConfigError, match="kept from training"):
        attach(tiny_model(), strategy="gelora", budget=2, steps=20, estimate_every=5, calibration=rows)
    assert sum(
        module.rank for module in attach(tiny_model(), strategy="gelora", budget=2, steps=20, calibration=rows).adapters
    )
