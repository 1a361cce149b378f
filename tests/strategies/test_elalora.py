"""ElaLoRA: who goes and who gets by hand, scores by hand, averages and moments that follow their triplets."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import dynlora
from dynlora.api import Attached
from dynlora.contracts.harness import ListRecorder, MemoryKeeper, make_trainer, tiny_config
from dynlora.engine import edits
from dynlora.engine.context import Step
from dynlora.engine.model.offset_linear import take_sensitivity, triplet_scores
from dynlora.errors import ConfigError
from dynlora.strategies import build
from dynlora.strategies.elalora import exchange


def on_blocks(*shapes: tuple[int, int], rank: int = 3, steps: int = 3, **fields: object) -> Attached:
    """Return ElaLoRA on linear modules side by side, some steps old; events come after every 7 from step 12 on."""
    torch.manual_seed(0)
    model = nn.Module()
    model.layers = nn.ModuleList(nn.Linear(d_in, d_out) for d_in, d_out in shapes)
    attached = dynlora.attach(model, strategy="elalora", budget=rank, steps=100, lr=1e-2, **fields)
    train(attached, steps)
    return attached


def train(attached: Attached, steps: int) -> None:
    """Take so many steps."""
    generator = torch.Generator().manual_seed(0)
    for _ in range(steps):
        terms = [m(torch.randn(8, m.info.d_in, generator=generator)).pow(2).mean() for m in attached.adapters]
        (sum(terms) + attached.penalty()).backward()
        attached.step()


def gradients(attached: Attached) -> None:
    """Compute gradients without a step."""
    generator = torch.Generator().manual_seed(1)
    sum(m(torch.randn(8, m.info.d_in, generator=generator)).pow(2).mean() for m in attached.adapters).backward()


def test_exchange_by_hand() -> None:
    scores = [[1.0, 5.0, 9.0], [2.0, 0.5, 7.0], [8.0, 6.0, 9.0]]
    # put up: 1, 5 | 0.5, 2 | 6, 8
    drops, claims = exchange(scores, amount=2, per_module=2)
    assert [(drop.module, drop.component, drop.score) for drop in drops] == [(1, 1, 0.5), (0, 0, 1.0)]
    assert claims == [(2, 8.0), (2, 6.0)]
    drops, claims = exchange(scores, amount=9, per_module=2)
    assert [(drop.module, drop.component) for drop in drops] == [(1, 1), (0, 0), (1, 0)]
    assert [m for m, _ in claims] == [2, 2, 0]
    assert exchange([[1.0], [2.0]], amount=4, per_module=2) == ([], [])


@given(st.lists(st.lists(st.floats(0, 1), min_size=1, max_size=5), min_size=1, max_size=6), st.integers(0, 9))
def test_no_module_loses_all_and_none_is_both_dropped_and_claimed_for(scores: list[list[float]], amount: int) -> None:
    drops, claims = exchange(scores, amount, per_module=3)
    assert len(drops) == len(claims) <= amount
    for m, own in enumerate(scores):
        lost = [drop.component for drop in drops if drop.module == m]
        assert len(set(lost)) == len(lost) < len(own)
    if drops:
        assert max(drop.score for drop in drops) <= min(score for _, score in claims)


def test_the_importance_of_a_module_is_the_sum_over_its_triplets() -> None:
    trainer = make_trainer(tiny_config("elalora", strategy={"name": "elalora"}, adapter__rank=3))
    trainer.train(MemoryKeeper())
    strategy = trainer.strategy
    scores = triplet_scores(trainer.adapters, strategy.sensitivity, strategy.uncertainty)
    assert strategy.signals(trainer.adapters)["importance"].tolist() == pytest.approx(
        [float(one.sum()) for one in scores]
    )
    assert max(map(len, scores)) > 1


def test_scores_by_hand() -> None:
    attached = on_blocks((2, 2), rank=1, steps=0)
    module = attached.adapters[0]
    values = {"lora_A": [[1.0, -2.0]], "lora_B": [[3.0], [1.0]], "scale": [2.0]}
    slopes = {"lora_A": [[0.5, 0.5]], "lora_B": [[1.0], [-1.0]], "scale": [-0.1]}
    with torch.no_grad():
        for name, value in values.items():
            tensor = getattr(module, name)
            tensor.zero_()
            tensor.grad = torch.zeros_like(tensor)
            place = tensor[:1] if name != "lora_B" else tensor[:, :1]
            slope = tensor.grad[:1] if name != "lora_B" else tensor.grad[:, :1]
            place.copy_(torch.tensor(value))
            slope.copy_(torch.tensor(slopes[name]))
    mean, deviation = {}, {}
    take_sensitivity(attached.adapters, mean, deviation, 0.5, 0.8)
    # I = |w g|: A 0.5, 1; B 3, 1; E 0.2. mean = I / 2, deviation = 0.2 · I / 2; score = 0.05 I²
    wanted = 0.05 * (0.2**2 + (0.5**2 + 1) / 2 + (3**2 + 1) / 2)
    assert triplet_scores(attached.adapters, mean, deviation)[0].tolist() == pytest.approx([wanted])
    take_sensitivity(attached.adapters, mean, deviation, 0.5, 0.8)
    assert float(mean["layers.0.scale"][0]) == pytest.approx(0.15)  # 0.5 · 0.1 + 0.5 · 0.2
    assert float(deviation["layers.0.scale"][0]) == pytest.approx(0.8 * 0.02 + 0.2 * 0.05)


def test_amounts_and_events_by_hand() -> None:
    ela = build("elalora", {"warmup_steps": 20, "final_steps": 20, "allocate_every": 10, "exchanged": 4})
    assert [ela.amount(step, 100) for step in (20, 50, 60, 70, 80)] == [4, 4, 3, 2, 1]  # 4 (1 - p³) at p = 0 .. 1
    assert ela.events(100, 4) == [30, 40, 50, 60, 70, 80]
    constant = build("elalora", {"decay": False, "warmup_steps": 20, "final_steps": 20, "allocate_every": 10})
    assert [constant.amount(step, 100) for step in constant.events(100, 4)] == [4] * 6
    assert ela.events(100, 1) == []
    assert build("elalora", {"exchanged": 0}).events(100, 4) == []
    with pytest.raises(ConfigError, match="no reallocation fits"):
        build("elalora", {"allocate_every": 100}).check(20, 4)


def test_the_default_schedule_has_three_events_at_every_length() -> None:
    ela = build("elalora", {})
    few = {total: events for total in range(20, 401) if len(events := ela.events(total, 2)) < 3}
    assert few == {}
    assert all(ela.amount(step, total) >= 1 for total in range(20, 401) for step in ela.events(total, 2))


def test_starts_as_adalora_does_and_without_exchange_stays_it() -> None:
    losses = []
    common = {"orth_reg_weight": 0.5}
    for name, fields in (("elalora", {"exchanged": 0}), ("adalora", {"init_r": 2})):
        recorder = ListRecorder()
        config = tiny_config(name, strategy={"name": name, **common, **fields}, train__lr=1e-2)
        make_trainer(config, recorder=recorder).train(MemoryKeeper())
        losses.append(list(recorder.scalars["loss", "train"].values()))
    assert losses[0] == pytest.approx(losses[1], abs=1e-4)  # the scalings differ by 1e-5


def test_a_run_that_counts_components_keeps_their_number_and_exchanges() -> None:
    fields = {"name": "elalora", "budget_unit": "components"}
    trainer = make_trainer(tiny_config("elalora", strategy=fields, adapter__rank=3))
    held: set[int] = set()
    trainer.on_step = lambda t: held.add(sum(t.adapters.ranks))
    trainer.train(MemoryKeeper())
    assert held == {3 * 12}
    assert len(set(trainer.adapters.ranks)) > 1
    assert min(trainer.adapters.ranks) >= 1


def assert_stands_alone(rows: torch.Tensor, place: int) -> None:
    """Check that a row has norm one and is orthogonal to those before it."""
    assert float(rows[place].norm()) == pytest.approx(1, abs=1e-5)
    assert torch.allclose(rows[:place] @ rows[place], torch.zeros(place), atol=1e-5)


@pytest.mark.parametrize("reset_optimizer", [False, True])
def test_a_new_triplet_is_orthogonal_keeps_the_function_and_all_else_follows(reset_optimizer: bool) -> None:
    attached = on_blocks((12, 9), (12, 9), (12, 9), steps=11, exchanged=2, reset_optimizer=reset_optimizer)
    adapters, strategy = attached.adapters, attached.strategy
    gradients(attached)
    before = {m.info.name: (m.lora_A.detach().clone(), m.lora_B.detach().clone()) for m in adapters}
    updates = [module.delta_weight().detach() for module in adapters]
    parts = [
        module.scaling * module.scale[j].detach() * torch.outer(module.lora_B[:, j], module.lora_A[j]).detach()
        for module in adapters
        for j in range(3)
    ]
    moments = {m.info.name: attached.optimizer.state[m.lora_A]["exp_avg_sq"].clone() for m in adapters}
    for name in ("lora_A", "lora_B", "scale"):  # the last module gets both
        strategy.sensitivity[f"layers.2.{name}"] *= 1e4
    event = strategy.events(100, 3)[0]
    with torch.no_grad():
        made = strategy.allocate(adapters, Step(event, 100, 1e-2))
        edits.apply(adapters, made, attached.optimizer, step=event)
    moves = [edit for edit in made if isinstance(edit, edits.Move)]
    assert [move.receiver.module for move in moves] == [2, 2]
    gone = [drop for move in moves for drop in move.donors]
    for m, module in enumerate(adapters):
        lost = [drop.component for drop in gone if drop.module == m]
        stay = [j for j in range(3) if j not in lost]
        got = sum(move.receiver.module == m for move in moves)
        assert module.rank == len(stay) + got
        A, B = module.lora_A.detach()[: module.rank], module.lora_B.detach()[:, : module.rank]
        assert torch.equal(A[: len(stay)], before[module.info.name][0][stay])
        assert torch.equal(B[:, : len(stay)], before[module.info.name][1][:, stay])
        for j in range(len(stay), module.rank):
            assert_stands_alone(A, j)
            assert_stands_alone(B.t(), j)
            assert 0 < float(module.scale[j].detach()) <= 1e-13
        wanted = updates[m] - sum((parts[3 * m + j] for j in lost), torch.zeros(()))
        assert torch.allclose(module.delta_weight(), wanted, atol=1e-6)
        state = attached.optimizer.state.get(module.lora_A, {})
        assert bool(state) != reset_optimizer
        if not reset_optimizer:
            assert torch.equal(state["exp_avg_sq"][: len(stay)], moments[module.info.name][stay])
    train(attached, 1)


def test_averages_are_packed_as_the_triplets_are() -> None:
    attached = on_blocks((12, 9), (12, 9), steps=11, exchanged=1)
    strategy, adapters = attached.strategy, attached.adapters
    gradients(attached)
    mean = {key: value.clone() for key, value in strategy.sensitivity.items()}
    deviation = {key: value.clone() for key, value in strategy.uncertainty.items()}
    take_sensitivity(adapters, mean, deviation, strategy.beta1, strategy.beta2)
    with torch.no_grad():
        made = strategy.allocate(adapters, Step(strategy.events(100, 3)[0], 100, 1e-2))
    drop = next(edit.donors[0] for edit in made if isinstance(edit, edits.Move))
    stay = [j for j in range(3) if j != drop.component]
    name = adapters[drop.module].info.name
    for average, wanted in ((strategy.sensitivity, mean), (strategy.uncertainty, deviation)):
        assert torch.equal(average[f"{name}.lora_A"][:2], wanted[f"{name}.lora_A"][stay])
        assert torch.equal(average[f"{name}.lora_B"][:, :2], wanted[f"{name}.lora_B"][:, stay])
        assert torch.equal(average[f"{name}.scale"][:2], wanted[f"{name}.scale"][stay])
        assert not average[f"{name}.scale"][2:].any()


@pytest.mark.parametrize(("budget_unit", "grown"), [("parameters", 3), ("components", 1)])
def test_what_a_large_triplet_leaves_over_goes_round_the_receivers(budget_unit: str, grown: int) -> None:
    attached = on_blocks((20, 20), (6, 6), rank=3, steps=0, exchanged=1, decay=False, budget_unit=budget_unit)
    scores = [[1.0, 5.0, 6.0], [8.0, 9.0, 10.0]]
    with torch.no_grad():
        made = attached.strategy._exchanged(attached.adapters, scores, Step(50, 100, 1e-2))
        edits.apply(attached.adapters, made, None, step=50)
    assert [module.rank for module in attached.adapters] == [2, 3 + grown]  # 40 parameters pay for 3 times 12
    assert all(row["receiver_score"] == 9.0 for row in edits.describe(made))
