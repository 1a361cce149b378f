"""First ranks of `dynamic`: from a look at training rows, within the budget of uniform LoRA and its gates."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch

from dynlora.engine.allocation.greedy import greedy_ranks
from dynlora.engine.context import Probe
from dynlora.engine.init.initializers import probe_batches
from dynlora.engine.init.weight_gradients import weight_gradients
from dynlora.engine.loop.trainer import Trainer
from dynlora.strategies.dynamic import initial_ranks
from tests.engine.harness import ARCHITECTURES, MemoryKeeper, make_trainer, same, tiny_config, weights


def dynamic(way: str, architecture: str = "bert", **fields: object) -> Trainer:
    strategy = {"name": "dynamic", "initial_ranks": way, **fields}
    return make_trainer(tiny_config("dynamic", strategy=strategy, adapter__rank=4), architecture)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("way", ["inputs", "gradients"])
@pytest.mark.parametrize("gates", ["off", "module", "rank"])
def test_they_differ_and_keep_floor_and_budget(way: str, architecture: str, gates: str) -> None:
    trainer = dynamic(way, architecture, gates=gates)
    ranks = trainer.adapters.ranks
    count = trainer.adapters.adapter_parameter_count()
    if (way, architecture) != ("inputs", "gpt2"):  # what its layers are given varies alike in each
        assert len(set(ranks)) > 1
    assert min(ranks) >= 1
    assert max(ranks) <= 8
    assert count["active"] + count["gate"] <= count["budget"]
    cheapest = min(trainer.adapters.costs)
    assert count["budget"] - count["active"] - count["gate"] < cheapest, "a budget is there to be spent"


def test_the_function_is_the_base_models_and_training_goes_on_from_there() -> None:
    trainer = dynamic("gradients")
    rows = trainer.evaluation.tokens
    with trainer.adapters.disabled():
        base = trainer.predictions(rows).loss
    assert np.array_equal(trainer.predictions(rows).loss, base)
    trainer.train(MemoryKeeper())
    assert trainer.step == 20


def test_a_resume_looks_at_no_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    keeper = MemoryKeeper()
    whole = dynamic("gradients")
    whole.train(keeper)
    monkeypatch.setattr(initial_ranks, "probe_batches", lambda *_, **__: pytest.fail("looked again"))
    config = tiny_config("dynamic", strategy={"name": "dynamic", "initial_ranks": "gradients"}, adapter__rank=4)
    resumed = make_trainer(config, state=keeper.state(10))
    resumed.train(MemoryKeeper())
    assert same(weights(resumed), weights(whole))


def test_gradients_rank_by_what_a_component_promises(monkeypatch: pytest.MonkeyPatch) -> None:
    """With exact decompositions: sigma times the 1-norm of u, over d_in + d_out, the largest first."""
    seen: list[Probe] = []

    def spy(probe: Probe, n: int, *, labels: bool = False) -> Sequence[dict[str, torch.Tensor]]:
        seen.append(probe)
        return probe_batches(probe, n, labels=labels)

    monkeypatch.setattr(initial_ranks, "probe_batches", spy)
    trainer = dynamic("gradients", gates="off", min_rank=0)
    (probe,) = seen
    names = [module.info.name for module in trainer.adapters]
    frozen = {module.info.name: module.base_layer for module in trainer.adapters}
    gradients = weight_gradients(probe.model, frozen, probe_batches(probe, 8, labels=True), probe.task)
    gains = []
    for name in names:
        u, value, _ = torch.linalg.svd(gradients[name].double(), full_matrices=False)
        gains.append((value * u.abs().sum(0)).numpy())
    wanted = greedy_ranks(gains, trainer.adapters.costs, [8] * len(names), budget=probe.budget, min_rank=0)
    assert trainer.adapters.ranks == wanted


def test_where_no_rank_moves_they_stay_uniform() -> None:
    assert set(dynamic("gradients", allocation="none", gates="off").adapters.ranks) == {4}
    assert set(dynamic("inputs", min_rank=4, gates="off").adapters.ranks) == {4}
