"""Boosters: folded without a jump, kept as a list that is the sum, and gone again when the adapters are off."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dynlora.engine.edits import apply
from dynlora.engine.edits.boost import NextBooster
from dynlora.engine.modules import ModuleInfo
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
    for side in ("lora_A", "lora_B"):
        assert same(*({m.info.name: getattr(m, side).detach() for m in trainer.adapters} for trainer in runs))


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


@settings(max_examples=60, deadline=None)
@given(st.sampled_from([0.25, 0.5, 0.75, 1.0]), st.integers(1, 7), st.integers(1, 6), st.integers(0, 99))
def test_no_round_trains_nothing_and_the_budget_is_spent(share: float, layers: int, rank: int, seed: int) -> None:
    infos = [ModuleInfo(f"{layer}{kind}", layer, kind, 8, 8) for layer in range(layers) for kind in "qv"]
    budget = rank * sum(info.cost for info in infos)
    strategy = build("xgblora", {"layer_share": share})
    rounds = strategy.chosen(infos, budget, seed, rank)
    assert all(rounds)
    assert len(rounds) <= strategy.room(rank)
    spent = sum(infos[m].cost for members in rounds for m in members)
    round_cost = sum(infos[m].cost for m in rounds[0])
    assert budget - round_cost < spent <= budget


def test_all_layers_at_once_take_as_many_rounds_as_the_rank() -> None:
    trainer, recorder = trained(layer_share=1.0)
    assert [step for step, kind, _, _ in recorder.events if kind == "reallocate"] == [10]
    assert trainer.strategy.events(20, 2) == [10]
    assert all(module.rank for module in trainer.adapters), "the last round trains too"


def test_the_cosine_of_boosters_is_that_of_their_matrices() -> None:
    trainer, _ = trained()
    module = next(m for m in trainer.adapters if m.count and m.rank)
    last = torch.outer(module.boosters_B[:, module.count - 1], module.boosters_A[module.count - 1])
    now = module.lora_B @ module.lora_A
    expected = torch.cosine_similarity(last.flatten(), now.flatten(), dim=0)
    torch.testing.assert_close(module.likeness(), expected, rtol=1e-4, atol=1e-6)


def test_more_rounds_than_the_budget_pays_for_are_refused() -> None:
    config = tiny_config("xgblora", strategy={"name": "xgblora", "rounds": 5, "layer_share": 0.5}, train__steps=40)
    with pytest.raises(ConfigError, match=r"strategy.rounds=5: rank 2 pays for 4 rounds .* lower it to 4"):
        make_trainer(config)


def test_folded_boosters_count_as_allocated() -> None:
    trainer, _ = trained()
    count = trainer.adapters.adapter_parameter_count()
    assert count["active"] <= count["budget"] <= count["allocated"]


def test_a_step_trains_the_components_of_its_round_and_resting_modules_stay_zero() -> None:
    trainer = make_trainer(tiny_config("xgblora", train__lr=1e-2))
    order, signals = trainer.begin()
    for _ in range(3):
        trainer.take_step(order, signals)
    cost = sum(module.info.cost for module in trainer.adapters if module.rank)
    live = [m for m in trainer.adapters if m.lora_A.any() or m.lora_B.any()]
    assert [m.info.name for m in live] == [m.info.name for m in trainer.adapters if m.rank]
    assert sum(int((m.lora_A != 0).sum() + (m.lora_B != 0).sum()) for m in trainer.adapters) == cost


def test_the_log_replays_the_run() -> None:
    trainer, recorder = trained()
    begun = [row["modules"] for _, _, _, payload in recorder.events if "edits" in payload for row in payload["edits"]]
    infos = [module.info for module in trainer.adapters]
    assert begun == [list(m) for m in trainer.strategy.chosen(infos, trainer.adapters.budget, 0, 2)[1:]]
    assert np.array_equal(recorder.vectors["boosting"][20], [module.rank for module in trainer.adapters])
    losses, told = recorder.scalars["loss", "train"], recorder.scalars["booster_loss", "train"]
    assert list(told) == [5, 10, 15, 20]
    assert told[10] == pytest.approx(np.mean([losses[step] for step in range(6, 11)]), rel=1e-5)
    assert all(-1 <= cosine <= 1 for cosine in recorder.scalars["booster_cosine", "train"].values())
    assert recorder.scalars["boosters", "train"][20] == max(trainer.adapters.ranks)


def test_rounds_too_short_to_learn_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"strategy.rounds=8: each takes at least 4 steps .* lower it to 5"):
        build("xgblora", {"rounds": 8}).check(20, 8)
