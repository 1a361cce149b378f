"""Half of the adapter is trained: exactly half, the rest keeps its bits, and the optimizer knows nothing of it."""

from __future__ import annotations

import pytest
import torch

from dynlora.errors import ConfigError
from dynlora.strategies import build
from tests.engine.harness import MemoryKeeper, make_trainer, same, tiny_config, weights


def trainer_of(mask: str, steps: int = 20, **fields):
    """Return a fresh trainer."""
    strategy = {"name": "lora_sp", "mask": mask, **fields}
    return make_trainer(tiny_config("lora_sp", strategy=strategy, train__lr=1e-2, train__steps=steps))


def trained_mask(module) -> tuple[torch.Tensor, torch.Tensor]:
    """Return which entries of A and B are trained, as masks."""
    masks = []
    for whole, index in ((module.lora_A, module.index_A), (module.lora_B, module.index_B)):
        flat = torch.zeros(whole.numel(), dtype=torch.bool)
        flat[index] = True
        masks.append(flat.view_as(whole))
    return masks[0], masks[1]


@pytest.mark.parametrize("mask", ["entry", "row", "matrix"])
def test_what_is_frozen_keeps_its_bits_and_the_rest_moves(mask: str) -> None:
    trainer = trainer_of(mask)
    before = [(m.lora_A.detach().clone(), m.lora_B.detach().clone()) for m in trainer.adapters]
    trainer.train(MemoryKeeper())
    for module, (A, B) in zip(trainer.adapters, before, strict=True):
        in_a, in_b = trained_mask(module)
        assert torch.equal(module.lora_A[~in_a], A[~in_a])
        assert torch.equal(module.lora_B[~in_b], B[~in_b])
        assert (module.lora_B[in_b] != 0).all()
        assert mask == "matrix" or (module.lora_A[in_a] != A[in_a]).float().mean() > 0.9


def test_half_is_half() -> None:
    for mask in ("entry", "row"):
        for module in trainer_of(mask).adapters:
            in_a, in_b = trained_mask(module)
            assert int(in_a.sum()) == module.lora_A.numel() // 2
            assert int(in_b.sum()) == module.lora_B.numel() // 2
    rows = trained_mask(trainer_of("row").adapters[0])
    assert set(rows[0].float().mean(1).tolist()) == {0.0, 1.0}
    assert set(rows[1].float().mean(1).tolist()) == {0.0, 1.0}


@pytest.mark.parametrize("mask", ["entry", "row", "matrix"])
def test_the_optimizer_holds_moments_of_what_is_trained_alone(mask: str) -> None:
    trainer = trainer_of(mask)
    trainer.train(MemoryKeeper())
    head = sum(p.numel() for p in trainer.optimizer.param_groups[-1]["params"])
    held = sum(
        value.numel()
        for state in trainer.optimizer.state.values()
        for key, value in state.items()
        if key in ("exp_avg", "exp_avg_sq")
    )
    trained = sum(int(m.sum()) for module in trainer.adapters for m in trained_mask(module))
    whole = sum(module.lora_A.numel() + module.lora_B.numel() for module in trainer.adapters)
    assert held == 2 * (trained + head)
    if mask != "matrix":
        assert trained == whole / 2


def test_all_of_it_is_lora_to_the_bit() -> None:
    runs = [
        make_trainer(tiny_config("lora", adapter__dropout=0.1)),
        make_trainer(tiny_config("x", strategy={"name": "lora_sp", "share": 1.0}, adapter__dropout=0.1)),
    ]
    found = []
    for trainer in runs:
        trainer.train(MemoryKeeper())
        found.append({m.info.name: torch.cat([m.lora_A.t(), m.lora_B]).detach() for m in trainer.adapters})
    assert same(*found)


def test_drawing_anew_keeps_the_moments_of_what_stays() -> None:
    trainer = trainer_of("entry", steps=20, resample_every=5)
    module = trainer.adapters[2]
    seen = {}

    def look(t) -> None:
        seen[t.step] = (module.index_B.clone(), t.optimizer.state[module.part_B]["exp_avg"].clone())

    trainer.on_step = look
    trainer.train(MemoryKeeper())
    assert torch.equal(seen[6][0], seen[9][0])
    before, after = seen[4][0], seen[5][0]
    assert not torch.equal(before, after)
    stays = torch.isin(after, before)
    assert 0.3 < stays.float().mean() < 0.7
    assert (seen[5][1][stays] != 0).all()
    assert not seen[5][1][~stays].any()


def test_masks_follow_the_seed_and_resume_when_they_are_drawn_anew() -> None:
    strategy = {"name": "lora_sp", "resample_every": 4}
    config = tiny_config("lora_sp", strategy=strategy, train__lr=1e-2, log__checkpoint_every=1)
    keeper, whole = MemoryKeeper(), make_trainer(config)
    whole.train(keeper)
    for step in (3, 4, 10):
        resumed = make_trainer(config, state=keeper.state(step))
        resumed.train(MemoryKeeper())
        assert same(weights(whole), weights(resumed)), step
    other = make_trainer(tiny_config("lora_sp", strategy=strategy, seed=1))
    assert not torch.equal(other.adapters[0].index_A, make_trainer(config).adapters[0].index_A)


def test_contradictions_are_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"strategy.share=0.1: leaves less than one of 4 components; raise it to 0.25"
    ):
        build("lora_sp", {"mask": "row", "share": 0.1}).check(100, 4)
    with pytest.raises(ConfigError, match=r"strategy.share=1.0: mask=matrix freezes all of A"):
        build("lora_sp", {"mask": "matrix", "share": 1.0}).check(100, 4)
