"""Half of the adapter is trained: exactly half, the rest keeps its bits, and the optimizer knows nothing of it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dynlora.contracts.harness import (
    ListRecorder,
    MemoryKeeper,
    make_trainer,
    same,
    tiny_config,
    weights,
)
from dynlora.engine.context import Step
from dynlora.engine.loop.optimizer import clip
from dynlora.errors import ConfigError
from dynlora.strategies import build


def trainer_of(mask: str, steps: int = 20, **fields):
    """Return a fresh trainer."""
    strategy = {"name": "lora_sp", "mask": mask, **fields}
    return make_trainer(tiny_config("lora_sp", strategy=strategy, train__lr=1e-2, train__steps=steps))


def trained_mask(module) -> tuple[torch.Tensor, torch.Tensor]:
    """Return which entries of A and B are trained, as masks."""
    mask = module.trained()
    return mask["A"].bool(), mask["B"].bool()


@pytest.mark.parametrize("mask", ["entry", "row", "matrix"])
def test_what_is_frozen_keeps_its_bits_and_the_rest_moves_and_has_moments(mask: str) -> None:
    trainer = trainer_of(mask)
    before = [(m.lora_A.detach().clone(), m.lora_B.detach().clone()) for m in trainer.adapters]
    trainer.train(MemoryKeeper())
    for module, (A, B) in zip(trainer.adapters, before, strict=True):
        in_a, in_b = trained_mask(module)
        assert torch.equal(module.lora_A[~in_a], A[~in_a])
        assert torch.equal(module.lora_B[~in_b], B[~in_b])
        assert (module.lora_B[in_b] != 0).all()
        assert mask == "matrix" or (module.lora_A[in_a] != A[in_a]).float().mean() > 0.9
    head = sum(p.numel() for p in trainer.optimizer.param_groups[-1]["params"])
    held = sum(
        value.numel()
        for state in trainer.optimizer.state.values()
        for key, value in state.items()
        if key in ("exp_avg", "exp_avg_sq")
    )
    trained = sum(int(m.sum()) for module in trainer.adapters for m in trained_mask(module))
    assert held == 2 * (trained + head), "the optimizer holds moments of what is trained alone"


def test_drawing_anew_keeps_the_moments_of_what_stays() -> None:
    trainer = trainer_of("entry", steps=20, resample_every=5)
    module = trainer.adapters[2]
    seen = {}

    def look(t) -> None:
        moments = t.optimizer.state[module.part_B]
        seen[t.step] = (module.index_B.clone(), moments["exp_avg"].clone(), moments["exp_avg_sq"].clone())

    trainer.on_step = look
    trainer.train(MemoryKeeper())
    assert torch.equal(seen[6][0], seen[9][0])
    before, after = seen[4][0], seen[5][0]
    assert not torch.equal(before, after)
    stays = torch.isin(after, before)
    assert 0.3 < stays.float().mean() < 0.7
    assert (seen[5][1][stays] != 0).all()
    assert not seen[5][1][~stays].any()
    usual = seen[5][2][~stays].unique()
    assert len(usual) == 1, "one second moment for all that come"
    assert seen[5][2][stays].min() <= usual <= seen[5][2][stays].max()


def test_the_first_steps_of_what_is_drawn_anew_do_not_exceed_the_rate() -> None:
    trainer = trainer_of("entry", steps=40, resample_every=20)
    module, lr = trainer.adapters[2], 1e-2
    kept = {}

    def look(t) -> None:
        kept[t.step] = (module.trained()["B"].bool(), module.lora_B.detach().clone())

    trainer.on_step = look
    trainer.train(MemoryKeeper())
    new = kept[20][0] & ~kept[19][0]
    assert new.any()
    step = (kept[21][1] - kept[20][1])[new].abs()
    assert step.max() < 1.5 * lr


@pytest.mark.parametrize("mask", ["entry", "row", "matrix"])
def test_a_start_from_data_is_what_training_begins_from(mask: str) -> None:
    strategy = {"name": "lora_sp", "mask": mask, "init": "eva"}
    trainer = make_trainer(tiny_config("lora_sp", strategy=strategy, train__lr=1e-3, train__warmup=0.0))
    start = [module.lora_A.detach().clone() for module in trainer.adapters]
    assert all(torch.allclose(A @ A.t(), torch.eye(2), atol=1e-5) for A in start)
    order, signals = trainer.begin()
    trainer.take_step(order, signals)
    for module, A in zip(trainer.adapters, start, strict=True):
        assert (module.lora_A - A).abs().max() <= 1.1e-3


def bytes_held(module) -> int:
    """Return the bytes of weights, gradients, trained copies, their places and two moments of a module's A and B."""
    parts = [(part, index) for _, _, part, index in module.parts()]
    whole = [getattr(module, f"lora_{side}") for side in "AB"]
    trained = [part for part, _ in parts] + [w for w in whole if module.adapter_parameters().get("lora_A") is w]
    trained += [w for w in whole if module.adapter_parameters().get("lora_B") is w]
    held = [*whole, *(w.grad for w in whole if w.grad is not None), *(t for pair in parts for t in pair)]
    return sum(t.numel() * t.element_size() for t in held) + sum(2 * t.numel() * t.element_size() for t in trained)


@pytest.mark.parametrize(("mask", "bytes_a_number"), [("entry", 16), ("row", 14), ("matrix", 10)])
def test_what_a_number_of_the_adapter_takes_at_the_peak(mask: str, bytes_a_number: float) -> None:
    trainer = trainer_of(mask)
    module = next(m for m in trainer.adapters if m.info.d_in == m.info.d_out)
    trainer._loss(trainer._batch(trainer.begin()[0], 0)).backward()
    numbers = module.lora_A.numel() + module.lora_B.numel()
    assert bytes_held(module) / numbers == pytest.approx(bytes_a_number, abs=0.6)  # places of rows are few, not none


def test_masks_follow_the_seed_and_resume_when_they_are_drawn_anew() -> None:
    strategy = {"name": "lora_sp", "resample_every": 4}
    config = tiny_config("lora_sp", strategy=strategy, train__lr=1e-2, log__checkpoint_every=4)
    keeper, whole = MemoryKeeper(), make_trainer(config)
    whole.train(keeper)
    resumed = make_trainer(config, state=keeper.state(4))
    resumed.train(MemoryKeeper())
    assert same(weights(whole), weights(resumed))
    other = make_trainer(tiny_config("lora_sp", strategy=strategy, seed=1))
    assert not torch.equal(other.adapters[0].index_A, make_trainer(config).adapters[0].index_A)


def test_contradictions_are_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"strategy.share=0.1: leaves less than one of 4 components; raise it to 0.25"
    ):
        build("lora_sp", {"mask": "row", "share": 0.1}).check(100, 4)
    with pytest.raises(ConfigError, match=r"share"):
        build("lora_sp", {"share": 0.0})
    with pytest.raises(ConfigError, match=r"strategy.share=1.0: mask=matrix freezes all of A"):
        build("lora_sp", {"mask": "matrix", "share": 1.0}).check(100, 4)
    with pytest.raises(ConfigError, match=r"strategy.resample_every=5: mask=matrix freezes all of A and draws nothing"):
        build("lora_sp", {"mask": "matrix", "resample_every": 5}).check(100, 4)


def test_the_map_of_what_is_trained_has_a_number_for_each_component() -> None:
    recorder = ListRecorder()
    strategy = {"name": "lora_sp", "mask": "row", "resample_every": 10}
    trainer = make_trainer(tiny_config("lora_sp", strategy=strategy), recorder=recorder)
    trainer.train(MemoryKeeper())
    assert recorder.axes["trained"] == "component"
    shares = recorder.vectors["trained"]
    module = trainer.adapters[0]
    in_a, in_b = (mask.float() for mask in trained_mask(module))
    by_hand = (in_a.sum(1) + in_b.sum(0)) / module.info.cost
    np.testing.assert_allclose(shares[20][:2], by_hand, rtol=1e-6)
    assert sorted(by_hand.tolist()) == [0.25, 0.75], "one of two components, and half of the outputs for both"
    assert not np.array_equal(shares[0], shares[20])


@pytest.mark.parametrize("share", [0.3, 0.5])
def test_shares_count_to_the_nearest(share: float) -> None:
    for module in trainer_of("entry", share=share).adapters:
        for mask, whole in zip(trained_mask(module), (module.lora_A, module.lora_B), strict=True):
            assert int(mask.sum()) == round(share * whole.numel())


def test_the_clipped_norm_knows_nothing_of_what_is_frozen() -> None:
    trainer = trainer_of("entry")
    order, _ = trainer.begin()
    trainer._backward(order, 1)
    with torch.no_grad():
        for module in trainer.adapters:
            for mask, whole in zip(trained_mask(module), (module.lora_A, module.lora_B), strict=True):
                whole.grad[~mask] = 1e6
    trainer.strategy.observe(trainer.adapters, Step(1, 20, 1e-3))
    clip(trainer.optimizer, 1.0)
    parts = [p.grad for group in trainer.optimizer.param_groups for p in group["params"]]
    norm = torch.stack([part.norm() for part in parts]).norm()
    assert 1e-3 < norm <= 1.001, "the norm of what is trained alone, far below a million"
