"""LoRA-Ensemble: members in one batch equal members one by one, nothing leaks, and what they disagree about is told."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from dynlora.contracts.harness import ListRecorder, MemoryKeeper, make_trainer, tiny_config, tiny_model, tiny_tokens
from dynlora.engine.data.batches import Tokens
from dynlora.engine.evaluation.inference import AdaptedModel
from dynlora.engine.loop.step_signals import spectrum
from dynlora.engine.loop.trainer import Trainer
from dynlora.engine.model.modules import ModuleInfo
from dynlora.errors import ConfigError, DynloraError
from dynlora.inference.session import load_run
from dynlora.strategies import build
from dynlora.strategies.lora_ensemble import (
    MemberLinear,
    MemberLoraLinear,
    Team,
)
from dynlora.tasks.classification import Classification
from dynlora.tasks.regression import Regression
from dynlora.training import run as training_run
from tests.tiny import tiny_config as run_config

M, MEMBER_RANK, D_IN, D_OUT = 3, 2, 6, 5


def module(team: Team | None = None, scaling: float = 1.5) -> MemberLoraLinear:
    """Return a module of three members whose B is not zero."""
    torch.manual_seed(0)
    info = ModuleInfo("m", 0, "m", D_IN, D_OUT)
    adapter = MemberLoraLinear(
        nn.Linear(D_IN, D_OUT), info, team=team or Team(M), member_rank=MEMBER_RANK, scaling=scaling
    )
    adapter.draw_members(0, 1.0)
    nn.init.normal_(adapter.lora_B)
    return adapter


def ensemble(**fields: object) -> Trainer:
    """Return an untrained trainer of two members of rank 1 on the tiny model."""
    return make_trainer(tiny_config("lora_ensemble", strategy={"name": "lora_ensemble", **fields}, train__lr=1e-2))


@pytest.mark.parametrize("fused", [True, False])
def test_members_in_one_batch_equal_members_one_by_one(fused: bool) -> None:
    adapter, x = module(), torch.randn(4, 7, D_IN)
    adapter.fused = fused
    with adapter.team.spread({"x": x}) as repeated:
        outputs = adapter(repeated["x"]).view(M, 4, 7, D_OUT)
    for i in range(M):
        A, B = adapter.member(i)
        expected = adapter.base_layer(x) + 1.5 * F.linear(F.linear(x, A), B)
        assert torch.allclose(outputs[i], expected, atol=1e-5), i


@pytest.mark.parametrize("fused", [True, False])
def test_no_gradient_reaches_another_member(fused: bool) -> None:
    adapter, x = module(), torch.randn(4, D_IN)
    adapter.fused = fused
    with adapter.team.spread({"x": x}) as repeated:
        adapter(repeated["x"]).view(M, 4, D_OUT)[1].square().sum().backward()
    own = slice(MEMBER_RANK, 2 * MEMBER_RANK)
    others = [j for j in range(M * MEMBER_RANK) if j // MEMBER_RANK != 1]
    assert adapter.lora_A.grad is not None
    assert adapter.lora_B.grad is not None
    assert adapter.lora_A.grad[own].abs().min() > 0
    assert adapter.lora_B.grad[:, own].abs().min() > 0
    assert not adapter.lora_A.grad[others].any()
    assert not adapter.lora_B.grad[:, others].any()


def test_the_head_is_one_linear_a_member_and_leaks_nothing() -> None:
    first, x = nn.Linear(D_IN, 2), torch.randn(4, D_IN)
    head = MemberLinear(first, "classifier", Team(M), seed=0)
    with head.team.spread({"x": x}) as repeated:
        logits = head(repeated["x"]).view(M, 4, 2)
    assert head.bias is not None
    for i in range(M):
        assert torch.allclose(logits[i], F.linear(x, head.weight[i], head.bias[i]), atol=1e-6)
    assert torch.equal(head.weight[0], first.weight)
    assert not torch.allclose(head.weight[1], head.weight[2])
    logits[2].sum().backward()
    assert head.weight.grad is not None
    assert head.weight.grad[2].any()
    assert not head.weight.grad[:2].any()


def test_members_train_as_if_each_were_alone() -> None:
    trainer = ensemble(members=2)
    batch = tiny_tokens().batch(range(8))
    labels = batch.pop("labels")
    trainer.model.train()
    output = trainer.strategy.forward(trainer.model, batch).detach()
    assert output.shape == (2, 8, 2)
    each = torch.stack([F.cross_entropy(member, labels) for member in output])
    loss = trainer.strategy.loss(output, labels)
    assert float(loss) == pytest.approx(float(each.mean()), abs=1e-6)
    together = F.nll_loss(Classification().pool_members(output)[0], labels)
    assert float(together) < float(loss) - 1e-5, "the loss of the mean answer is another one"


def test_members_start_alike_up_to_their_heads() -> None:
    trainer = ensemble(members=2)
    seen = []
    trainer.model.classifier.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    batch = tiny_tokens().batch(range(6))
    del batch["labels"]
    trainer.strategy.forward(trainer.model.eval(), batch)
    first, second = seen[0].view(2, 6, -1)
    assert torch.equal(first, second)
    base = tiny_model().eval()
    assert torch.allclose(first, base.bert(**batch).pooler_output, atol=1e-6)
    A = [m.member(i)[0] for m in trainer.adapters for i in range(2)]
    assert not torch.equal(A[0], A[1])


def test_mean_of_probabilities_and_mutual_information_by_hand() -> None:
    p = torch.tensor([[[0.9, 0.1]], [[0.5, 0.5]]])
    together, apart = Classification().pool_members(p.log())
    assert together.exp().tolist()[0] == pytest.approx([0.7, 0.3])
    # H(.7, .3) = 0.610864; (H(.9, .1) + H(.5, .5)) / 2 = (0.325083 + 0.693147) / 2
    assert float(apart) == pytest.approx(0.610864 - 0.509115, abs=1e-5)


def test_numbers_are_averaged_and_spread_by_their_deviation() -> None:
    mean, apart = Regression().pool_members(torch.tensor([[[1.0]], [[2.0]], [[6.0]]]))
    assert mean.tolist() == [[3.0]]
    assert float(apart) == pytest.approx(math.sqrt(14 / 3))


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 5), st.integers(2, 5), st.integers(0, 10_000), st.sampled_from([0.1, 3.0, 80.0]))
def test_answers_are_probabilities_whatever_the_members_say(count: int, n_labels: int, seed: int, width: float) -> None:
    logits = width * torch.randn(count, 6, n_labels, generator=torch.Generator().manual_seed(seed))
    together, apart = Classification().pool_members(logits)
    assert torch.allclose(together.exp().sum(-1), torch.ones(6), atol=1e-5)
    assert torch.allclose(together.softmax(-1), logits.softmax(-1).mean(0), atol=1e-5)
    assert bool((apart >= 0).all())
    assert bool((apart <= math.log(min(count, n_labels)) + 1e-4).all())
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    assert torch.allclose(Classification().pool_members(logits[order])[0], together, atol=1e-5)
    assert torch.allclose(Classification().pool_members(logits[order])[1], apart, atol=1e-5)


def test_probabilities_of_zero_disagree_by_a_number() -> None:
    sure = torch.tensor([[[0.0, -torch.inf]], [[-torch.inf, 0.0]]])
    assert float(Classification().pool_members(sure)[1]) == pytest.approx(math.log(2))


@torch.no_grad()
def test_distance_and_norm_of_members_by_their_updates() -> None:
    adapter = module()
    updates = [1.5 * (B @ A) for A, B in (adapter.member(i) for i in range(M))]
    pairs = [(updates[i] - updates[j]).norm() for i in range(M) for j in range(M) if i != j]
    assert float(adapter.distance()) == pytest.approx(float(torch.stack(pairs).mean()), rel=1e-4)
    square = torch.stack([update.square().sum() for update in updates]).mean()
    assert float(spectrum(adapter)[0]) == pytest.approx(float(square.sqrt()), rel=1e-4)


def test_spread_widens_the_start_of_every_member() -> None:
    wide, usual = ensemble(spread=24.0), ensemble()
    for one, other in zip(wide.adapters, usual.adapters, strict=True):
        assert torch.allclose(one.lora_A, 24 * other.lora_A)


@pytest.mark.parametrize(
    ("rank", "fields", "members", "member_rank", "share"),
    [
        (8, {"members": 3}, 3, 2, 0.75),
        (2, {}, 2, 1, 1.0),
        (1, {}, 1, 1, 1.0),
        (2, {"member_budget": "each", "members": 3}, 3, 2, 3.0),
    ],
)
def test_members_divide_the_budget(
    rank: int, fields: dict[str, object], members: int, member_rank: int, share: float
) -> None:
    config = tiny_config("lora_ensemble", strategy={"name": "lora_ensemble", **fields}, adapter__rank=rank)
    adapters = make_trainer(config).adapters
    assert adapters.ranks == [members * member_rank] * len(adapters)
    uniform = rank * sum(adapter.info.cost for adapter in adapters)
    count = adapters.adapter_parameter_count()
    assert count["active"] == count["allocated"] == share * uniform
    assert count["active"] <= count["budget"]


@pytest.mark.parametrize(
    ("fields", "word"),
    [({"members": 5}, "raise adapter.rank"), ({"members": 1, "spread": 2.0}, "set it to 1")],
)
def test_contradictions_are_refused(fields: dict[str, object], word: str) -> None:
    with pytest.raises(ConfigError, match=word):
        build("lora_ensemble", fields).check(20, 4)


def test_rows_that_belong_to_nobody_are_refused() -> None:
    adapter = module()
    with pytest.raises(DynloraError, match="call the strategy's forward"):
        adapter(torch.randn(6, D_IN))
    with adapter.team.spread({"x": torch.zeros(4, D_IN)}), pytest.raises(DynloraError, match=r"adapter\.targets"):
        adapter(torch.randn(1, 16, D_IN))
    assert adapter.team.rows is None


def test_disagreement_and_calibration_are_recorded() -> None:
    recorder = ListRecorder()
    trainer = make_trainer(tiny_config("lora_ensemble", train__lr=1e-2), recorder=recorder)
    trainer.train(MemoryKeeper())
    rows = recorder.vectors["held_out_disagreement"]
    assert sorted(rows) == [0, 10, 20]
    assert rows[20].max() > 0
    assert np.array_equal(recorder.vectors["probe_disagreement"][20], rows[20][:8])
    by_group = [rows[20][0::2].mean(), rows[20][1::2].mean()]
    assert recorder.vectors["group_disagreement"][20] == pytest.approx(by_group)
    assert recorder.scalars["disagreement", "validation"][20] == pytest.approx(rows[20].mean())
    assert recorder.scalars["disagreement_p99", "validation"][20] == pytest.approx(np.percentile(rows[20], 99))
    assert 0 <= recorder.scalars["ece", "validation"][20] <= 1
    apart = recorder.scalars["function_distance", "train"]
    assert sorted(apart) == list(range(1, 21))
    assert all(0 < value <= 1 for value in apart.values())
    distance = recorder.vectors["member_distance"]
    assert distance[0].max() == 0
    assert distance[20].min() > 0


def rows_of(low: int, high: int, n: int, seed: int) -> Tokens:
    """Return rows whose label shifts most of their tokens, all drawn from `low` .. `high`."""
    rng = np.random.default_rng(seed)
    label, length = rng.integers(0, 2, n), rng.integers(4, 12, n)
    ids = [
        rng.integers(low, high, k) + np.where(rng.random(k) < 0.85, c, 0) * 28
        for c, k in zip(label, length, strict=True)
    ]
    features = [{"input_ids": row.tolist(), "attention_mask": [1] * len(row)} for row in ids]
    return Tokens(features, label.astype(np.int64), length, {"input_ids": 0, "attention_mask": 0})


def test_members_disagree_more_about_words_they_never_saw() -> None:
    config = tiny_config("lora_ensemble", adapter__rank=8, train__steps=60, train__lr=1e-2)
    trainer = make_trainer(config, tokens=rows_of(3, 12, 96, seed=0))
    trainer.train(MemoryKeeper())
    known, new = (trainer.predictions(rows).disagreement for rows in (rows_of(3, 12, 200, 9), rows_of(16, 30, 200, 9)))
    assert known is not None
    assert new is not None
    assert new.mean() > 1.5 * known.mean()
    assert (new > np.percentile(known, 99)).mean() > 0.03  # of known words one row in a hundred


def test_the_distance_of_answers_by_hand() -> None:
    p = torch.tensor([[[0.9, 0.1], [0.5, 0.5]], [[0.7, 0.3], [0.5, 0.5]], [[0.4, 0.6], [0.5, 0.5]]])
    assert float(Classification().member_distance(p.log())) == pytest.approx((0.2 + 0.5 + 0.3) / 3 / 2)
    numbers = torch.tensor([[[1.0]], [[4.0]]])
    assert float(Regression().member_distance(numbers)) == pytest.approx(3.0)


def test_a_loaded_ensemble_flags_what_its_members_disagree_about(
    tiny_bert: Path, tiny_data: Path, runs_dir: Path
) -> None:
    config = run_config(tiny_bert, tiny_data, strategy={"name": "lora_ensemble"})
    run = training_run.train(config, runs_dir).folder
    model = load_run(run)
    texts = ["the film was great", "the plot was awful"]
    rows = model.answers(texts)
    assert model.unusual is not None
    for row in rows:
        assert row["unusual"] is (row["disagreement"] > model.unusual)
    model.unusual = min(row["disagreement"] for row in rows)
    assert [row["unusual"] for row in model.answers(texts)].count(True) == 1
    best = load_run(run, "best")
    assert isinstance(best, AdaptedModel)
    assert best.unusual is not None
