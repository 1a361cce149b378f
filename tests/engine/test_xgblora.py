"""Boosters: folded without a jump, kept as a list that is the sum, and gone again when the adapters are off."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dynlora.engine.edits import apply
from dynlora.engine.edits.boost import NextBooster
from dynlora.errors import ConfigError
from dynlora.strategies import build
from tests.engine.harness import ListRecorder, MemoryKeeper, make_trainer, same, tiny_config, tiny_model, tiny_tokens


def trained(**fields):
    """Return a trainer of four rounds, trained to its end, and what it recorded."""
    recorder = ListRecorder()
    config = tiny_config("xgblora", strategy={"name": "xgblora", **fields}, train__lr=1e-2)
    trainer = make_trainer(config, recorder=recorder)
    trainer.train(MemoryKeeper())
    return trainer, recorder


def logits(trainer) -> torch.Tensor:
    """Return what the model says of a few rows."""
    trainer.model.eval()
    with torch.no_grad():
        batch = {key: value for key, value in tiny_tokens().batch(range(6)).items() if key != "labels"}
        return trainer.model(**batch).logits


def test_a_fold_leaves_the_function_as_it_is() -> None:
    trainer, _ = trained()
    before = logits(trainer)
    apply(trainer.adapters, [NextBooster((0, 3))], trainer.optimizer, step=99)
    torch.testing.assert_close(logits(trainer), before, rtol=0, atol=1e-5)
    assert [module.rank for module in trainer.adapters][:4] == [1, 0, 0, 1]
    assert trainer.adapters[0].lora_A not in trainer.optimizer.state, "moments of a new booster begin anew"


def test_the_boosters_are_what_the_weights_gained() -> None:
    trainer, _ = trained()
    fresh = dict(tiny_model().named_modules())
    for module in trainer.adapters:
        gained = module.base_layer.weight + module.delta_weight() - fresh[module.info.name].weight
        A, B = module.low_rank()
        torch.testing.assert_close(gained, module.scaling * B @ A, rtol=0, atol=1e-6)
        assert torch.linalg.matrix_rank(gained.detach(), atol=1e-7) <= len(A) == module.active_rank()


def test_without_adapters_it_is_the_base_model_again() -> None:
    trainer, _ = trained()
    base = tiny_model()
    base.load_state_dict({**base.state_dict(), **_head(trainer)})
    with trainer.adapters.disabled():
        off = logits(trainer)
    batch = {key: value for key, value in tiny_tokens().batch(range(6)).items() if key != "labels"}
    with torch.no_grad():
        torch.testing.assert_close(off, base.eval()(**batch).logits, rtol=0, atol=1e-4)


def _head(trainer) -> dict[str, torch.Tensor]:
    return {k: v for k, v in trainer.model.state_dict().items() if k.startswith("classifier")}


def test_one_booster_on_all_layers_is_rank_one_lora() -> None:
    whole = {"name": "xgblora", "rounds": 1, "layer_share": 1.0, "norm_penalty": 0.0}
    runs = [
        make_trainer(tiny_config(s["name"], strategy=s, adapter__rank=1, train__lr=1e-2))
        for s in ({"name": "lora"}, whole)
    ]
    for trainer in runs:
        trainer.train(MemoryKeeper())
    assert same(*({m.info.name: m.lora_B.detach() for m in trainer.adapters} for trainer in runs))


def test_a_round_trains_its_layers_and_nothing_else() -> None:
    config = tiny_config("xgblora", train__lr=1e-2)
    trainer = make_trainer(config)
    strategy, infos = trainer.strategy, [module.info for module in trainer.adapters]
    rounds = strategy.chosen(infos, trainer.adapters.budget, 0, 2)
    assert len(rounds) == 4
    assert sum(infos[m].cost for members in rounds for m in members) <= trainer.adapters.budget
    seen = {}
    trainer.on_step = lambda t: seen.setdefault(t.step, [module.rank for module in t.adapters])
    trainer.train(MemoryKeeper())
    ends = strategy.ends(20, 2)
    for step, ranks in seen.items():
        number = next(i for i, end in enumerate(ends) if step < end or end == 20)
        assert [m for m, rank in enumerate(ranks) if rank] == list(rounds[number]), step
    for members in rounds:
        layers = {infos[m].layer for m in members}
        assert len(layers) == 1, "half of two layers"


def test_the_log_replays_the_run() -> None:
    trainer, recorder = trained()
    begun = [row["modules"] for _, _, _, payload in recorder.events if "edits" in payload for row in payload["edits"]]
    infos = [module.info for module in trainer.adapters]
    assert begun == [list(m) for m in trainer.strategy.chosen(infos, trainer.adapters.budget, 0, 2)[1:]]
    assert np.array_equal(recorder.vectors["boosting"][20], [module.rank for module in trainer.adapters])
    assert recorder.scalars["boosters", "train"][20] == max(trainer.adapters.ranks)


def test_rounds_too_short_to_learn_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"strategy.rounds=8: each takes at least 4 steps .* lower it to 5"):
        build("xgblora", {"rounds": 8}).check(20, 8)
