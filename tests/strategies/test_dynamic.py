"""Dynamic LoRA: budget after every event, nothing lost when off, capacity found where it was planted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import dynlora
from dynlora.contracts.harness import (
    ListRecorder,
    MemoryKeeper,
    make_trainer,
    same,
    tiny_config,
    weights,
)
from dynlora.engine import edits
from dynlora.engine.context import Step
from dynlora.engine.edits import Drop, SetScale
from dynlora.engine.edits.components import Recompose
from dynlora.engine.loop.first_steps import TrainingDiverged
from dynlora.engine.loop.trainer import Trainer
from dynlora.engine.model.adapters import Adapters
from dynlora.engine.model.lora_linear import LoraLinear
from dynlora.errors import ConfigError
from dynlora.strategies import build
from dynlora.strategies.dynamic import ALIKE, Exploration, coefficient_of_variation, cut_steps
from tests.pairwise import pairwise


@pytest.mark.parametrize("gates", ["off", "scale", "module", "rank"])
def test_packed_components_train_on_as_masked_ones_do(gates: str) -> None:
    """One run drops components, which packs the others; its twin sets their scale to 0 where they are."""
    fields = {"name": "dynamic", "allocation": "none", "gates": gates}
    config = tiny_config("dynamic", strategy=fields, adapter__rank=4, adapter__dropout=0.1, train__lr=1e-2)
    recorders = ListRecorder(), ListRecorder()
    packed, masked = (make_trainer(config, recorder=recorder) for recorder in recorders)
    for module in masked.adapters:
        module.use_scale(1.0, trainable=False)
    gone = {0: [1], 1: [0, 2], 5: [2], 7: [0]}
    drops = [Drop(m, j) for m, components in gone.items() for j in components]
    rooms = {m: range(masked.adapters[m].rank) for m in gone}  # some start a component short, to pay for gates
    masks = [SetScale(m, tuple(float(j not in gone[m]) for j in room)) for m, room in rooms.items()]

    def after(step: int, made: Sequence[edits.Edit]) -> Callable[[Trainer], None]:
        return lambda t: edits.apply(t.adapters, made, t.optimizer, step=step) if t.step == step else None

    for trainer, made in ((packed, drops), (masked, masks)):
        trainer.on_step = after(7, made)
        trainer.train(MemoryKeeper())
    losses = [list(recorder.scalars["loss", "train"].values()) for recorder in recorders]
    assert losses[0] == pytest.approx(losses[1], abs=1e-6)
    assert len(losses[0]) == 20
    assert len(set(packed.adapters.ranks)) > 1
    for m, (module, twin) in enumerate(zip(packed.adapters, masked.adapters, strict=True)):
        stay = [j for j in range(twin.rank) if j not in gone.get(m, [])]
        assert module.rank == len(stay)
        for ours, theirs in (
            (module.lora_A[: len(stay)], twin.lora_A[stay]),
            (module.lora_B[:, : len(stay)], twin.lora_B[:, stay]),
        ):
            torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


@pairwise(
    "allocation, gates, moves",
    ["rank", "random", "both", "scalar"],
    ["off", "scale", "module", "rank"],
    [0, None],
)
def test_budget_holds_after_every_step(allocation: str, gates: str, moves: int | None) -> None:
    fields = {"name": "dynamic", "allocation": allocation, "gates": gates, "explore": 1.0, "moves": moves}
    trainer = make_trainer(tiny_config("dynamic", strategy=fields, train__lr=1e-2))
    seen = []

    def look(t: object) -> None:
        count = trainer.adapters.adapter_parameter_count()
        seen.append(count["active"] + count["gate"] <= count["budget"])
        assert all(module.rank >= 1 for module in trainer.adapters)

    trainer.on_step = look
    trainer.train(MemoryKeeper())
    assert len(seen) == 20
    assert all(seen)


WITHIN = {"name": "dynamic", "explore": 1.0}
"""Components move within the budget."""


def test_a_short_run_still_moves_three_times() -> None:
    for explore in (1.0, None):
        for total in range(20, 400, 7):
            assert len(build("dynamic", {"explore": explore}).events(total, 8)) >= 3
        for total in range(10, 20):
            build("dynamic", {"explore": explore}).check(total, 4)
    recorder = ListRecorder()
    trainer = make_trainer(tiny_config("dynamic", strategy=WITHIN, train__lr=1e-2), recorder=recorder)
    trainer.train(MemoryKeeper())
    events = [payload for _, kind, _, payload in recorder.events if kind == "reallocate"]
    assert len(events) >= 3
    for payload in events:
        for row in payload["edits"]:
            assert row["receiver"] is not None
            assert row["receiver_score"] > 0


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"warmup_steps": 15, "final_steps": 10}, "together they must be less"),
        ({"allocate_every": 100}, "no reallocation fits"),
        ({"min_rank": 9}, "must not exceed adapter.rank"),
    ],
)
def test_contradictory_schedules_are_refused(fields: dict[str, int], word: str) -> None:
    with pytest.raises(ConfigError, match=word):
        build("dynamic", fields).check(20, 4)


def test_where_every_module_keeps_its_rank_nothing_listens_and_no_room_is_made() -> None:
    """At rank 1 a minimum rank of 1 leaves the ranks as they are; the default lets modules go there, and only there."""
    assert [build("dynamic", {}).least(rank) for rank in (1, 2, 8)] == [0, 1, 1]
    assert build("dynamic", {"allocation": "scalar", "min_rank": 1}).events(100, 1), "it moves no rank"
    recorder = ListRecorder()
    strategy = {"name": "dynamic", "gates": "off", "min_rank": 1}
    trainer = make_trainer(tiny_config("dynamic", adapter__rank=1, strategy=strategy), recorder=recorder)
    trainer.train(MemoryKeeper())
    assert trainer.adapters.ranks == [1] * len(trainer.adapters)
    assert [module.max_rank for module in trainer.adapters] == [1] * len(trainer.adapters)
    assert not any(kind == "reallocate" for _, kind, _, _ in recorder.events)


def test_a_checkpoint_of_an_earlier_version_with_gradient_sketches_goes_on_unchanged() -> None:
    config = tiny_config("dynamic", strategy=WITHIN, adapter__rank=4, train__lr=1e-2)
    keeper, whole = MemoryKeeper(), make_trainer(config)
    whole.train(keeper)
    state = keeper.state(10)
    for module in state["adapters"]["modules"].values():
        module["sketch"] = {"forward_sum": torch.zeros(4, 8), "backward_sum": torch.zeros(4, 17), "seed": 0, "key": "m"}
    state["strategy"]["listening"] = {"steps": 3}
    resumed = make_trainer(config, state=state)
    resumed.train(MemoryKeeper())
    assert same(weights(whole), weights(resumed))


def test_a_run_of_an_earlier_version_at_rank_1_goes_on_without_moving_rank() -> None:
    """It has no room for more than one component a module, and was never meant to move any."""
    config = tiny_config("dynamic", adapter__rank=1, strategy={**WITHIN, "min_rank": 1}, train__lr=1e-2)
    keeper, whole = MemoryKeeper(), make_trainer(config)
    whole.train(keeper)
    resumed = make_trainer(config, state=keeper.state(10))
    resumed.strategy.min_rank = None  # as it is read today where a config does not say it
    resumed.train(MemoryKeeper())
    assert same(weights(whole), weights(resumed))


class Planted(nn.Module):
    """Six linear modules side by side; the target differs from the start in one of them only, by rank 6."""

    def __init__(self, d: int = 24) -> None:
        """Draw the weights."""
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(d, d, bias=False) for _ in range(6))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (batch, 6, d) to (batch, 6, d), each module its own slice."""
        return torch.stack([layer(x[:, i]) for i, layer in enumerate(self.layers)], 1)


def planted_loss(strategy: str, seed: int, **fields: object) -> tuple[float, Adapters]:
    """Train on the planted task at rank 2 a module and return the final loss and the adapters."""
    torch.manual_seed(seed)
    model = Planted()
    teacher = [layer.weight.detach().clone() for layer in model.layers]
    teacher[3] += 0.3 * torch.randn(24, 6) @ torch.randn(6, 24) / 2
    attached = dynlora.attach(model, strategy=strategy, budget=2, steps=400, lr=1e-2, seed=seed, **fields)
    generator = torch.Generator().manual_seed(seed)
    loss = torch.zeros(())
    for _ in range(400):
        x = torch.randn(32, 6, 24, generator=generator)
        target = torch.stack([x[:, i] @ teacher[i].t() for i in range(6)], 1)
        loss = ((model(x) - target) ** 2).mean()
        loss.backward()
        attached.step()
    return loss.item(), attached.adapters


@pytest.mark.filterwarnings("ignore:dynlora. After 20 steps, the gradient of A and B is exactly 0:UserWarning")
def test_planted_rank_is_found_and_beats_uniform() -> None:
    """Where nothing is planted nothing is to be learned, and a warning says so."""
    fields = {"gates": "off"}
    loss, adapters = planted_loss("dynamic", 0, **fields)
    uniform, _ = planted_loss("lora", 0)
    assert adapters.ranks[3] >= 5
    assert adapters.ranks[3] == max(adapters.ranks)
    assert loss < 0.5 * uniform
    assert sum(adapters.ranks) <= 12


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(2, 9), st.integers(2, 9)), min_size=2, max_size=6),
    st.integers(1, 4),
    st.sampled_from(["random", "equal", "nan", "zero"]),
    st.integers(0, 10_000),
)
def test_budget_holds_for_odd_shapes_and_any_scores(
    shapes: list[tuple[int, int]], rank: int, kind: str, seed: int
) -> None:
    model = nn.Module()
    model.layers = nn.ModuleList(nn.Linear(a, b) for a, b in shapes)
    attached = dynlora.attach(
        model, strategy="dynamic", budget=rank, steps=40, gates="off", allocate_every=1, min_rank=0, moves=5, seed=seed
    )
    adapters, rng = attached.adapters, np.random.default_rng(seed)
    for index in range(6, 28):
        score = {"random": rng.random, "equal": lambda n: np.full(n, 0.5), "zero": np.zeros}.get(kind)
        worth, age = adapters.track("worth"), adapters.track("age")
        age.fill_(100)
        values = rng.choice([0.1, 0.7, np.nan], worth.shape) if score is None else score(worth.shape)
        worth.copy_(torch.as_tensor(np.asarray(values), dtype=worth.dtype))
        made = attached.strategy.allocate(adapters, Step(index, 40, 1e-3))
        edits.apply(adapters, made, None, step=index)
        count = adapters.adapter_parameter_count()
        assert count["active"] <= count["budget"]
        for module in adapters:
            assert 0 <= module.rank <= module.max_rank


EXPLORE = {"name": "dynamic", "explore": 4.0, "gates": "off"}
"""Wide, then cut."""


@pytest.mark.parametrize(
    ("more", "rank", "least"),
    [({}, 2, 1), ({"explore": None, "gates": "scale"}, 1, 0), ({"budget_share": 0.6}, 2, 1)],
)
def test_exploring_ends_in_the_budget_and_resumes_to_the_bit(more: dict[str, Any], rank: int, least: int) -> None:
    fields = {**EXPLORE, **more}
    config = tiny_config("dynamic", strategy=fields, adapter__rank=rank, train__lr=1e-2, log__checkpoint_every=1)
    keeper, recorder = MemoryKeeper(), ListRecorder()
    whole = make_trainer(config, recorder=recorder)
    started = whole.adapters.ranks
    assert whole.adapters.slack < 0
    whole.train(keeper)
    assert 0 <= whole.adapters.slack < max(whole.adapters.costs)
    assert len(set(whole.adapters.ranks)) > 1
    assert min(whole.adapters.ranks) >= least
    assert [module.scaling for module in whole.adapters] == pytest.approx([2.0] * len(whole.adapters))
    rows = [row for _, kind, _, made in recorder.events if kind == "reallocate" for row in made["edits"]]
    assert sum(row["count"] for row in rows) == sum(started) - sum(whole.adapters.ranks)
    for step in (1, cut_steps(whole.total)[0], cut_steps(whole.total)[-1]):
        resumed = make_trainer(config, state=keeper.state(step))
        resumed.train(MemoryKeeper())
        assert same(weights(whole), weights(resumed))


def test_importance_is_the_effect_by_which_cuts_are_made() -> None:
    recorder = ListRecorder()
    trainer = make_trainer(tiny_config("dynamic", strategy=EXPLORE, adapter__rank=2, train__lr=1e-2), recorder=recorder)
    expected: dict[int, list[float]] = {}

    def look(t: Trainer) -> None:
        exploration = t.strategy.exploration
        expected[t.step] = [float(exploration._basis(module)[2].sum()) for module in t.adapters]

    trainer.on_step = look
    trainer.train(MemoryKeeper())
    for step in (trainer.total - 1, cut_steps(trainer.total)[0] - 1):
        recorded = recorder.vectors["importance"][step]
        assert np.allclose(recorded, expected[step], rtol=0.05), "but for the ridge"
    assert all(np.any(values > 0) for step, values in recorder.vectors["importance"].items() if step > 1)


def test_a_module_counts_in_a_score_the_more_the_fewer_stand_out() -> None:
    """c is 0 for equal effects, √(n - 1) where one module has all, whatever the unit."""
    few, many = (np.repeat([1.0, 0.01], [n, 36 - n]) for n in (4, 18))
    assert coefficient_of_variation(np.full(36, 0.3)) == pytest.approx(0)
    assert coefficient_of_variation(np.eye(36)[0]) == pytest.approx(35**0.5)
    assert coefficient_of_variation(few) > 2 * coefficient_of_variation(many) > 0
    assert coefficient_of_variation(1e-9 * few) == pytest.approx(coefficient_of_variation(few))
    assert coefficient_of_variation(np.zeros(3)) == coefficient_of_variation(np.zeros(0)) == 0


@pytest.mark.parametrize(("spread", "min_rank", "is_kept"), [(0.1, None, True), (20.0, None, False), (0.1, 0, False)])
def test_each_module_keeps_a_component_where_all_matter_about_alike(
    spread: float, min_rank: int | None, is_kept: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cut to one component a module: where effects differ much, or at `min_rank=0`, some modules keep none."""
    trainer = make_trainer(tiny_config("dynamic", strategy=EXPLORE, adapter__rank=1))
    wide, n = trainer.adapters.modules[0].rank, len(trainer.adapters)
    modules = 0.1 + spread * np.linspace(0, 1, n) ** 8
    assert (coefficient_of_variation(modules) < ALIKE) == (spread < 1)
    effects = {
        one.info.name: torch.full((wide,), size).double() for one, size in zip(trainer.adapters, modules, strict=True)
    }

    def basis(_: Exploration, module: LoraLinear) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        live = module.rank
        return module.lora_A[:live].detach(), module.lora_B[:, :live].detach(), effects[module.info.name][:live]

    monkeypatch.setattr(Exploration, "_basis", basis)
    target = sum(trainer.adapters.costs)
    edits, _ = Exploration().cut(trainer.adapters, target, 8.0, min_rank=min_rank)
    assert all(len(edit.rows) for edit in edits) == is_kept


def test_a_run_that_has_diverged_says_so_at_a_cut() -> None:
    trainer = make_trainer(tiny_config("dynamic", strategy=EXPLORE, adapter__rank=2))

    def diverge(t: Trainer) -> None:
        if t.step == cut_steps(t.total)[0] - 1:
            t.adapters[0].lora_B.data.fill_(float("nan"))

    trainer.on_step = diverge
    with pytest.raises(TrainingDiverged):
        trainer.train(MemoryKeeper())


def test_cuts_at_random_are_a_control_with_a_seed_of_its_own() -> None:
    ranks = []
    for seed in (0, 0, 1):
        fields = {**EXPLORE, "allocation": "random", "allocation_seed": seed}
        trainer = make_trainer(tiny_config("dynamic", strategy=fields, adapter__rank=2))
        trainer.train(MemoryKeeper())
        ranks.append(trainer.adapters.ranks)
    assert ranks[0] == ranks[1] != ranks[2]


@pytest.mark.parametrize(
    ("name", "value"),
    [("allocation", "both"), ("allocation", "scalar"), ("gates", "rank"), ("warmup_steps", 3), ("moves", 2)],
)
def test_what_has_no_meaning_beside_exploring_is_refused(name: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=f"strategy.{name}={value}: .*strategy.explore=1"):
        build("dynamic", {**EXPLORE, name: value}).check(20, 2)
    usual = build("dynamic", {name: value})
    usual.check(20, 2)
    assert usual.start_rank(2) == 2, "a config of before means what it meant"


def test_training_starts_wide_and_wider_where_rank_is_least() -> None:
    assert [build("dynamic", {}).start_rank(rank) for rank in (1, 2, 4, 8)] == [8, 8, 16, 32]
    assert [build("dynamic", {"explore": 2.5}).start_rank(rank) for rank in (1, 8)] == [2, 20]


@pytest.mark.parametrize(("change", "kept"), [(1.0, 3), (0.25, 3), (1.0, 2)])
def test_a_change_of_variables_keeps_the_update_and_moments_follow_it(change: float, kept: int) -> None:
    """Where it leaves components out, the others still get gradients of their own."""
    trainer = make_trainer(tiny_config("lora", adapter__rank=3, train__lr=1e-2))
    trainer.train(MemoryKeeper())
    module, update = trainer.adapters[0], trainer.adapters[0].delta_weight()
    moments = [trainer.optimizer.state[part]["exp_avg"].clone() for part in (module.lora_A, module.lora_B)]
    rows = torch.randn(3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    columns = torch.linalg.inv(rows)
    edit = Recompose(0, rows[:kept], columns[:, :kept], module.scaling * change)
    edits.apply(trainer.adapters, [edit], trainer.optimizer, step=trainer.step)
    if kept == 3:
        assert torch.allclose(module.delta_weight(), update, atol=1e-5)
    scale = change**0.5  # factors are 1 / scale as large, so their gradients scale times
    down, up = (trainer.optimizer.state[part]["exp_avg"] / scale for part in (module.lora_A, module.lora_B))
    assert torch.allclose(down[:kept], columns.t().float()[:kept] @ moments[0][:3], atol=1e-6)  # ∂L/∂A' = Cᵀ ∂L/∂A
    assert torch.allclose(up[:, :kept], moments[1][:, :3] @ rows.t().float()[:, :kept], atol=1e-6)


def test_a_wide_start_learns_as_at_a_rate_that_is_lower_by_what_exceeds_the_budget() -> None:
    same_rest = {"adapter__dropout": 0.0, "train__head_lr": 1e-2, "train__weight_decay": 0.0}
    wide = make_trainer(tiny_config("dynamic", strategy=EXPLORE, adapter__rank=2, train__lr=1e-2, **same_rest))
    narrow = make_trainer(tiny_config("lora", adapter__rank=8, train__lr=1e-2 / 4, **same_rest))
    for module in narrow.adapters:
        module.scaling = 2.0
    for trainer in (wide, narrow):
        order, signals = trainer.begin()
        trainer.model.train()
        for _ in range(3):
            trainer.take_step(order, signals)
    for one, other in zip(wide.adapters, narrow.adapters, strict=True):
        a, b = one.delta_weight().detach().flatten(), other.delta_weight().detach().flatten()
        assert torch.cosine_similarity(a, b, dim=0) > 0.9  # gradients near nothing have either sign
        assert float(a.norm()) == pytest.approx(float(b.norm()), rel=0.2)
