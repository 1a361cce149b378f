"""Placements at exactly equal parameters, common random numbers, and an arm that is not judged where it was chosen."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.allocators import ALLOCATORS
from benchmarks.fact_memory import world
from benchmarks.fact_memory.__main__ import World, tuned_as
from benchmarks.headroom import conclusion, halves, verdict
from benchmarks.placements import arms, drawn, placed
from dynlora.contracts.harness import make_trainer, tiny_config
from dynlora.engine.model.modules import ModuleInfo

SIZES = {
    "even": {"self_attn.q_proj": (32, 32), "self_attn.o_proj": (32, 32), "mlp.up": (32, 96), "mlp.down": (96, 32)},
    "minilm": {"attention.query": (384, 384), "attention.out": (384, 384), "inter": (384, 1536), "out": (1536, 384)},
    "grouped": {"self_attn.q_proj": (576, 576), "self_attn.k_proj": (576, 192), "mlp.up": (576, 1536)},
}
"""Modules of a block: costs that divide each other, and costs that do not."""


def modules(sizes: str, layers: int = 4) -> list[ModuleInfo]:
    return [
        ModuleInfo(f"layers.{layer}.{kind}", layer, kind, *size)
        for layer in range(layers)
        for kind, size in SIZES[sizes].items()
    ]


def cost(infos: list[ModuleInfo], ranks: dict[str, int]) -> int:
    return sum(info.cost * ranks.get(info.name, 0) for info in infos)


@pytest.mark.parametrize("rank", [1, 2, 4])
@pytest.mark.parametrize("sizes", [*SIZES])
def test_all_arms_have_exactly_the_parameters_of_uniform(sizes: str, rank: int) -> None:
    infos = modules(sizes)
    placements = arms(infos, rank)
    assert len(placements) == 1 + 4 + len(SIZES[sizes]) + 8
    assert {cost(infos, dict(arm.ranks)) for arm in placements.values()} == {rank * sum(info.cost for info in infos)}
    assert all(
        arm.ranks[i.name] <= min(i.d_in, i.d_out) for arm in placements.values() for i in infos if i.name in arm.ranks
    )


def test_an_arm_holds_its_own_modules_evenly_and_says_what_is_outside() -> None:
    infos = modules("even")
    attention = arms(infos, 2)["attention"]
    assert attention.outside == 0
    assert {name for name in attention.ranks if "mlp" in name} == set()
    assert max(attention.ranks.values()) - min(attention.ranks.values()) <= 1
    uneven = arms(modules("minilm"), 1)["mlp"]
    outside = {name: rank for name, rank in uneven.ranks.items() if "attention" in name}
    assert uneven.outside == 768 * sum(outside.values()) > 0


def test_a_random_placement_is_that_of_its_number() -> None:
    infos = modules("even")
    assert drawn(infos, 2, 3) == drawn(infos, 2, 3)
    assert drawn(infos, 2, 3) != drawn(infos, 2, 4)


def test_an_arm_that_cannot_hold_the_budget_is_refused() -> None:
    infos = [ModuleInfo("layers.0.a", 0, "a", 2, 2), ModuleInfo("layers.0.b", 0, "b", 8, 8)]
    with pytest.raises(ValueError, match="cannot be placed"):
        placed(infos, 3, lambda info: info.kind == "a")


def test_ranks_share_the_draws_of_a() -> None:
    """A of rank 2 is the beginning of A of rank 4, so that arms differ in what they hold and in nothing else."""
    small, large = (make_trainer(tiny_config("lora", adapter__rank=rank)).adapters for rank in (2, 4))
    for one, other in zip(small, large, strict=True):
        assert torch.equal(one.lora_A[:2], other.lora_A[:2])
        assert not torch.equal(other.lora_A[:2], other.lora_A[2:4])


def test_the_best_of_many_equal_arms_shows_no_headroom() -> None:
    """Twenty arms of noise: judged where it was chosen, the best would look better in nearly every draw."""
    gaps = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        losses = {name: rng.normal(size=(8, 1)) + np.zeros((8, 50)) for name in ["uniform", *"abcdefghijklmnopqrs"]}
        gaps.append(verdict(losses))
    assert sum(one["has headroom"] for one in gaps) <= 3
    lowest = [min(mean for mean, _, _ in one["differences"].values()) for one in gaps]
    assert np.mean(lowest) < -0.5
    assert abs(np.mean([one["best - uniform"][0] for one in gaps])) < 0.5


@pytest.mark.parametrize(("gain", "words"), [(0.5, "has headroom"), (-0.5, "not used for this question")])
def test_an_arm_that_is_better_everywhere_is_found_and_said(gain: float, words: str) -> None:
    rng = np.random.default_rng(0)
    base = rng.normal(size=(8, 60))
    losses = {"uniform": base, "better": base - gain + 0.05 * rng.normal(size=base.shape), "worse": base + 1.0}
    decision = verdict(losses)
    assert decision["best"] == "better"
    assert decision["best - uniform"][0] == pytest.approx(-gain, abs=0.05)
    assert words in conclusion(decision)


def test_one_placement_alone_is_judged_on_everything() -> None:
    rng = np.random.default_rng(0)
    losses = {"uniform": rng.normal(size=(6, 40)), "other": rng.normal(size=(6, 40))}
    decision = verdict(losses)
    assert decision["best - uniform"] == decision["differences"]["other"]
    assert decision["chosen on"] == "other data"


def test_one_seed_decides_nothing() -> None:
    base = np.random.default_rng(0).normal(size=(1, 400))
    decision = verdict({"uniform": base, "better": base - 1.0})
    assert decision["best - uniform"][2] < 0
    assert not decision["has headroom"]
    assert conclusion(decision).startswith("Not decided")


@pytest.mark.parametrize("seeds", [1, 3, 8])
def test_what_chooses_and_what_reports_share_nothing(seeds: int) -> None:
    table = np.arange(seeds * 30).reshape(seeds, 30)
    chosen_on, reported_on, _ = halves(*table.shape)
    assert not set(chosen_on(table).flat) & set(reported_on(table).flat)
    assert chosen_on(table).size + reported_on(table).size == table.size


def test_facts_are_those_of_their_seed_and_keys_are_different(tmp_path: Path) -> None:
    texts = [world.saved_facts(tmp_path / str(n), 200, seed) / "train.jsonl" for n, seed in enumerate((1, 1, 2))]
    first, same, other = (path.read_text("utf-8") for path in texts)
    assert first == same != other
    assert len({line.split('"completion"')[0] for line in first.splitlines()}) == 200


def test_every_symbol_is_one_token_and_every_number_one_text() -> None:
    tokenizer = world.tokenizer()
    ids = tokenizer(world.SYMBOLS)["input_ids"]
    assert sorted(ids) == list(range(2, 66))
    assert tokenizer.decode(ids) == world.SYMBOLS
    assert len({world.spelled(number, 2) for number in range(64**2)}) == 64**2


@pytest.mark.parametrize(("loss", "bits"), [(0.0, 12 * 160 / 2560), (2 * np.log(64), 0.0)])
def test_bits_are_what_the_loss_lacks_of_a_guess(loss: float, bits: float, tmp_path: Path) -> None:
    run = {"loss": [loss] * 160, "right": [1] * 160, "budget": 2560}
    assert World(tmp_path, 160, 300, 1).summed([run, run])["bits"] == pytest.approx(bits, abs=1e-4)
    assert World(tmp_path, 160, 300, 1).summed([run, {"diverged": True}]) == {"diverged": 1}


def test_every_side_has_a_side_that_tunes_its_rate() -> None:
    infos = [
        ModuleInfo(f"layers.{layer}.{kind}", layer, kind, 32, 32)
        for layer in range(2)
        for kind in ("self_attn.q_proj", "self_attn.v_proj", "mlp.up_proj", "mlp.down_proj")
    ]
    placements = arms(infos, 1)
    tuned = {tuned_as(side) for side in [*placements, *ALLOCATORS]}
    assert tuned <= {*placements, *ALLOCATORS}
    assert all(tuned_as(side) == side for side in tuned)
