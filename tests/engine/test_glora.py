"""GLoRA: every path starts as the base, merges exactly and agrees with PEFT's; the search keeps to its limit."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from peft.tuners.glora.config import GloraConfig
from peft.tuners.glora.layer import GloraLinear as PeftGloraLinear
from torch import nn
from transformers.pytorch_utils import Conv1D

import dynlora
from dynlora import training
from dynlora.config import parse_config
from dynlora.engine.adapters import Adapters
from dynlora.engine.edits.paths import SettlePaths
from dynlora.engine.glora_linear import LORA, PATHS, WITHOUT_BIAS, GloraLinear, path_cost
from dynlora.engine.lora_linear import LoraLinear
from dynlora.engine.modules import ModuleInfo
from dynlora.engine.path_search import Space, evolve
from dynlora.engine.signals import spectrum
from dynlora.errors import ConfigError, NotMergeableError
from dynlora.loading import export_run, load_run
from dynlora.strategies import build
from tests.engine.harness import (
    ListRecorder,
    MemoryKeeper,
    make_trainer,
    same,
    tiny_config,
    tiny_model,
    tiny_tokens,
    weights,
)
from tests.tiny import save_data, save_tiny, tiny_values

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")  # PEFT asks the old name

D_IN, D_OUT, RANK = 7, 5, 2
INFO = ModuleInfo("m", 0, "m", D_IN, D_OUT)
some_path = st.sampled_from(PATHS)


def module(path: str | None = None, *, trained: bool = True, bias: bool = True, base: Any = None) -> GloraLinear:
    """Return a module; trained, none of its supports is zero."""
    torch.manual_seed(0)
    adapter = GloraLinear(base or nn.Linear(D_IN, D_OUT, bias=bias), INFO, rank=RANK, scaling=1.5, path=path)
    adapter.reset_parameters(0)
    if trained:
        with torch.no_grad():
            for parameter in adapter.adapter_parameters().values():
                parameter.add_(0.3 * torch.randn(parameter.shape))
    return adapter


def settled(path: str, **fields: Any) -> GloraLinear:
    """Return a trained super-net that has settled on a path."""
    adapter = module(**fields)
    adapter.settle(path)
    return adapter


def merged(adapter: GloraLinear, x: torch.Tensor) -> torch.Tensor:
    """Return the output of one plain linear map with everything folded in."""
    bias = adapter.base_bias
    shift = adapter.delta_bias()
    if shift is not None:
        bias = shift if bias is None else bias + shift
    return nn.functional.linear(x, adapter.matrix + adapter.delta_weight(), bias)


def test_there_are_432_paths_and_16_without_a_bias() -> None:
    assert len(set(PATHS)) == 4 * 4 * 3 * 3 * 3 == 432
    assert len(set(WITHOUT_BIAS)) == 16
    assert "nnnnn" in WITHOUT_BIAS
    assert LORA in WITHOUT_BIAS


def test_every_path_starts_as_the_base() -> None:
    adapter, x = module(trained=False), torch.randn(3, 4, D_IN)
    assert adapter.A_up.abs().min() > 0
    expected = adapter.base_layer(x)
    for path in PATHS:
        adapter.settle(path)
        assert torch.equal(adapter(x), expected), path
        assert torch.allclose(merged(adapter, x), expected, atol=1e-6), path


@settings(max_examples=120, deadline=None)
@given(some_path, st.sampled_from(["linear", "without bias", "transposed"]), st.booleans())
def test_merged_equals_unmerged_on_every_path(path: str, kind: str, fused: bool) -> None:
    base = Conv1D(D_OUT, D_IN) if kind == "transposed" else None
    adapter, x = settled(path, bias=kind != "without bias", base=base), torch.randn(3, 4, D_IN)
    adapter.fused = fused
    with torch.no_grad():
        if kind == "transposed":
            nn.init.normal_(adapter.base_layer.bias)  # pyright: ignore
        assert torch.allclose(adapter(x), merged(adapter, x), atol=1e-5)
        if path != "nnnnn" and kind != "without bias":
            assert not torch.allclose(adapter(x), adapter.base_layer(x), atol=1e-4)


def test_paths_by_hand() -> None:
    base = nn.Linear(2, 2)
    adapter = GloraLinear(base, ModuleInfo("m", 0, "m", 2, 2), rank=1, scaling=2.0)
    with torch.no_grad():
        base.weight.copy_(torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
        base.bias.copy_(torch.tensor([1.0, -1.0]))
        adapter.A_down.copy_(torch.tensor([[0.5], [1.0]]))
        adapter.A_up.copy_(torch.tensor([[1.0, 2.0]]))
        adapter.lora_B.copy_(torch.tensor([[0.1], [0.2]]))
        adapter.lora_A.copy_(torch.tensor([[1.0, -1.0]]))
        assert adapter.C_down is not None
        assert adapter.C_up is not None
        assert adapter.D is not None
        assert adapter.E is not None
        adapter.C_down.copy_(torch.tensor([[1.0], [0.5]]))
        adapter.C_up.fill_(3.0)
        adapter.D.copy_(torch.tensor([0.5, 2.0]))
        adapter.E.copy_(torch.tensor([10.0, 20.0]))
    x = torch.tensor([[1.0, 1.0]])  # base: (3 + 1, 7 - 1)
    by_hand = {
        "nnnnn": [4.0, 6.0],
        "vnnnn": [4.0 + 0.5 * 3, 6.0 + 1.0 * 7],
        "cnnnn": [4.0 + 0.5 * 3, 6.0 + 0.5 * 7],
        "lnnnn": [4.0 + 0.5 * (1 * 1 + 2 * 2), 6.0 + 1.0 * (3 * 1 + 4 * 2)],
        "nvnnn": [4.0 + 2 * 0.1 * 2, 6.0 + 2 * 0.2 * 2],
        "ncnnn": [4.0 + 2 * 0.1 * 2, 6.0 + 2 * 0.1 * 2],
        "nlnnn": [4.0, 6.0],
        "nnvnn": [4.0 + 1 * 1 + 2 * 0.5, 6.0 + 3 * 1 + 4 * 0.5],
        "nnlnn": [4.0 + 3 * (1 + 1), 6.0 + 3 * (3 + 2)],
        "nnnvn": [4.0 + 0.5 * 1, 6.0 - 2.0 * 1],
        "nnncn": [4.0 + 0.5 * 1, 6.0 - 0.5 * 1],
        "nnnnv": [14.0, 26.0],
        "nnnnc": [14.0, 16.0],
        "vnnvn": [4.0 + 0.5 * 3 + 0.5, 6.0 + 7 - 2],
    }
    for path, expected in by_hand.items():
        adapter.settle(path)
        assert adapter(x).tolist()[0] == pytest.approx(expected), path


@pytest.mark.parametrize("config_A_B", ["lora", "vector", "constant", "none"])
@pytest.mark.parametrize("config_C", ["lora", "vector", "none"])
@pytest.mark.parametrize("config_D_E", ["vector", "constant", "none"])
def test_agrees_with_peft_on_the_same_tensors(config_A_B: str, config_C: str, config_D_E: str) -> None:
    weight, column, bias = config_A_B[0], config_C[0], config_D_E[0]
    ours = settled(weight * 2 + column + bias * 2)
    assert ours.C_down is not None
    assert ours.C_up is not None
    assert ours.D is not None
    assert ours.E is not None
    config = GloraConfig(r=RANK, config_A_B=config_A_B, config_C=config_C, config_D_E=config_D_E)  # pyright: ignore
    theirs = PeftGloraLinear(ours.base_layer, "default", config)
    with torch.no_grad():
        scaled = ours.scaling * ours.lora_B
        for name, down, up in (("A", ours.A_down, ours.A_up), ("B", scaled, ours.lora_A)):
            support = getattr(theirs, f"glora_{name}")["default"]
            if weight == "l":
                support.Xd.copy_(down)
                support.Xu.copy_(up)
            elif weight != "n":
                support.X.copy_(down[:, :1] if weight == "v" else down[0, 0])
        if column != "n":
            support = theirs.glora_C["default"]
            tensors = {"Xd": ours.C_down, "Xu": ours.C_up} if column == "l" else {"X": ours.C_down[:, :1]}
            for name, tensor in tensors.items():
                getattr(support, name).copy_(tensor)
        for name, tensor in (("D", ours.D), ("E", ours.E)):
            if bias != "n":
                support = getattr(theirs, f"glora_{name}")["default"]
                support.X.copy_(tensor if bias == "v" else tensor[:1])
        x = torch.randn(3, D_IN)
        assert torch.allclose(ours(x), theirs(x), atol=1e-5)


def test_lora_path_is_lora() -> None:
    ours, plain = (
        module(LORA, trained=False),
        LoraLinear(nn.Linear(D_IN, D_OUT), INFO, rank=RANK, max_rank=RANK, scaling=1.5),
    )
    plain.base_layer.load_state_dict(ours.base_layer.state_dict())
    plain.reset_parameters(0)
    assert torch.equal(ours.lora_A, plain.lora_A)
    assert set(ours.adapter_parameters()) == {"lora_A", "lora_B"}
    with torch.no_grad():
        for adapter in (ours, plain):
            adapter.lora_B.fill_(0.1)
    x = torch.randn(4, D_IN)
    assert torch.equal(ours(x), plain(x))


def test_parameters_of_a_path_by_hand() -> None:
    # d_in 7, d_out 5, rank 2: low-rank 24, vector 5; C low-rank 16, vector 7; D and E vector 5
    by_hand = {"nnnnn": 0, LORA: 24, "llnnn": 48, "vcnnn": 6, "nnlnn": 16, "nnvcv": 13, "lvlvv": 24 + 5 + 16 + 10}
    for path, numbers in by_hand.items():
        assert path_cost(path, INFO, RANK) == numbers, path
    for path in PATHS:
        parts = settled(path).active_parts()
        assert sum(size for _, size in parts) == path_cost(path, INFO, RANK), path
        assert all(0 < size <= tensor.numel() for tensor, size in parts)


@pytest.mark.parametrize("path", ["lnnnn", "nnvcn", "vlnnv"])
def test_a_fixed_path_trains_what_it_uses_and_nothing_else(path: str) -> None:
    adapter = module(path, trained=False)
    numbers = sum(parameter.numel() for parameter in adapter.adapter_parameters().values())
    assert numbers >= path_cost(path, INFO, RANK)
    adapter.train()
    adapter(torch.randn(3, D_IN)).square().sum().backward()
    assert all(parameter.grad is not None for parameter in adapter.adapter_parameters().values())


def test_steps_draw_paths_uniformly_and_by_module_and_evaluations_none() -> None:
    first, second = (
        module(),
        GloraLinear(nn.Linear(D_IN, D_OUT), ModuleInfo("n", 0, "n", D_IN, D_OUT), rank=2, scaling=1),
    )
    adapters = Adapters([first, second], budget=48, reference_rank=2, seed=3)
    seen: list[tuple[str, str]] = []
    for step in range(1, 4321):
        adapters.streams.at(step, 0, 0)
        seen.append((first.taken(), second.taken()))
    assert len({one for one, _ in seen}) == 432
    assert sum(one == other for one, other in seen) < 40
    for place, forms in enumerate(("lvcn", "lvcn", "lvn", "vcn", "vcn")):
        counts = Counter(one[place] for one, _ in seen)
        assert set(counts) == set(forms)
        assert max(counts.values()) < 1.1 * 4320 / len(forms)
    adapters.streams.at(7, 0, 0)
    once = first.taken()
    adapters.streams.at(7, 1, 2)
    assert first.taken() == once, "all parts of a batch, and all processes, take one path"
    first.eval()
    assert first.taken() == LORA
    first.settle("vnnnn")
    assert first.train().taken() == "vnnnn"


def test_every_support_has_a_gradient_at_every_step() -> None:
    adapter = module()
    adapters = Adapters([adapter], budget=24, reference_rank=2, seed=0)
    for step in range(30):
        adapters.streams.at(step, 0, 0)
        adapter.zero_grad()
        adapter(torch.randn(3, D_IN)).square().sum().backward()
        for name, parameter in adapter.adapter_parameters().items():
            assert parameter.grad is not None, name
        if adapter.taken()[0] == "n":
            assert adapter.A_down.grad is not None
            assert not adapter.A_down.grad.any()


@torch.no_grad()
def test_norm_and_effective_rank_of_an_update_without_factors() -> None:
    base = nn.Linear(200, 150)
    adapter = GloraLinear(base, ModuleInfo("m", 0, "m", 200, 150), rank=4, scaling=2.0)
    adapter.reset_parameters(0)
    nn.init.normal_(adapter.A_down)
    adapter.settle("lnnnn")
    values = torch.linalg.svdvals(adapter.delta_weight())
    norm, effective = spectrum(adapter)
    assert float(norm) == pytest.approx(float(values.square().sum().sqrt()), rel=1e-4)
    exact = float(values.square().sum() ** 2 / values.pow(4).sum())
    assert float(effective) == pytest.approx(exact, rel=0.15)
    adapter.A_down.zero_()
    assert [float(value) for value in spectrum(adapter)] == [0.0, 0.0]


def space(n: int, rank: int, limit: float) -> Space:
    """Return a space of modules of odd shapes, every other one without a bias."""
    infos = [ModuleInfo(f"m{i}", i, "m", 3 + 2 * i, 9 - i) for i in range(n)]
    budget = int(limit * sum(rank * info.cost for info in infos))
    return Space(infos, [PATHS if i % 2 else WITHOUT_BIAS for i in range(n)], [rank] * n, budget)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 6), st.integers(1, 4), st.floats(0.01, 1.0), st.integers(0, 10_000), st.booleans())
def test_the_search_keeps_to_its_limit_and_repeats_itself(
    n: int, rank: int, limit: float, seed: int, nothing: bool
) -> None:
    where = space(n, rank, limit)
    asked: list[tuple[str, ...]] = []

    def loss(candidate: tuple[str, ...]) -> float:
        asked.append(candidate)
        return float("nan") if nothing else -float(where.cost(candidate))

    def search() -> Any:
        rng = np.random.default_rng(seed)
        first = where.fitted((LORA,) * n, rng)
        return evolve(where, loss, rng, first=first, population=6, rounds=2, kept=3, mutation=0.3)

    best, history = search()
    assert len(asked) == len(set(asked)) == history[-1]["tried"]
    for candidate in asked:
        assert where.cost(candidate) <= where.limit
        assert all(path in paths for path, paths in zip(candidate, where.paths, strict=True))
    assert where.cost(best) == max(map(where.cost, asked)) or nothing
    falling = [entry["best_loss"] for entry in history]
    assert falling == sorted(falling, reverse=True)
    assert search() == (best, history)


def test_of_equally_good_paths_the_cheapest_is_taken() -> None:
    where = space(3, 2, 1.0)

    def loss(candidate: tuple[str, ...]) -> float:
        return 0.5 + 1e-7 * where.cost(candidate) / where.limit * (-1) ** where.cost(candidate)

    asked: list[int] = []
    best, _ = evolve(
        where, lambda c: asked.append(where.cost(c)) or loss(c), np.random.default_rng(0),
        first=(LORA,) * 3, population=8, rounds=2, kept=3, mutation=0.3,
    )  # fmt: skip
    assert where.cost(best) == min(asked) < max(asked)


def test_the_search_finds_a_planted_path() -> None:
    where = space(4, 2, 1.0)
    wanted = ("vnnnn", "nvvnn", "cnnnn", "nnvvv")
    rng = np.random.default_rng(0)

    def distance(candidate: tuple[str, ...]) -> float:
        return sum(
            a != b for one, other in zip(candidate, wanted, strict=True) for a, b in zip(one, other, strict=True)
        )

    best, history = evolve(where, distance, rng, first=(LORA,) * 4, population=40, rounds=40, kept=10, mutation=0.3)
    assert distance(best) <= 2
    assert history[0]["best_loss"] >= 5


def test_the_found_paths_are_those_of_the_reserve_and_within_the_budget() -> None:
    recorder = ListRecorder()
    trainer = make_trainer(tiny_config("glora", train__lr=1e-2, train__steps=40), recorder=recorder)
    assert trainer.strategy.bench is not None
    assert len(trainer.tokens) + len(trainer.strategy.bench.reserve) == len(tiny_tokens())
    trainer.train(MemoryKeeper())
    rows = [row for _, kind, _, payload in recorder.events if kind == "reallocate" for row in payload["edits"]]
    assert [row["edit"] for row in rows] == ["paths"]
    paths, history = rows[0]["paths"], rows[0]["history"]
    modules = [m for m in trainer.adapters if isinstance(m, GloraLinear)]
    assert [module.eval().taken() for module in modules] == paths
    count = trainer.adapters.adapter_parameter_count()
    assert count["active"] == history[-1]["parameters"] <= count["budget"]
    assert count["allocated"] == sum(p.numel() for m in modules for p in m.adapter_parameters().values())
    assert trainer.strategy.bench.reserve_loss() == pytest.approx(history[-1]["best_loss"], abs=1e-5)
    assert history[-1]["best_loss"] < max(loss for _, loss in history[0]["population"])
    forms = np.array([recorder.vectors[f"path_{support}"][40] for support in "ABCDE"]).T.astype(int)
    assert ["".join("ncvl"[form] for form in row) for row in forms] == paths
    assert not np.array_equal(recorder.vectors["path_A"][39], recorder.vectors["path_A"][38])
    losses = recorder.vectors["held_out_loss"]
    assert losses[40].mean() == pytest.approx(trainer.predictions(trainer.tokens).loss.mean(), abs=1e-6)


def test_an_early_search_lets_the_found_paths_train_on() -> None:
    recorder = ListRecorder()
    fields = {"name": "glora", "search_after": 0.5, "population": 8, "kept": 4, "rounds": 2}
    keeper = MemoryKeeper()
    trainer = make_trainer(tiny_config("glora", strategy=fields, train__lr=1e-2), recorder=recorder)
    trainer.train(keeper)
    assert [step for step, kind, _, _ in recorder.events if kind == "reallocate"] == [10]
    for support in "ABCDE":
        forms = recorder.vectors[f"path_{support}"]
        assert all(np.array_equal(forms[step], forms[20]) for step in range(10, 21))
    assert trainer.predictions(trainer.tokens).loss.mean() < recorder.vectors["held_out_loss"][10].mean()
    resumed = make_trainer(tiny_config("glora", strategy=fields, train__lr=1e-2), state=keeper.state(15))
    resumed.train(MemoryKeeper())
    assert same(weights(trainer), weights(resumed))
    count = trainer.adapters.adapter_parameter_count()
    assert count["active"] <= count["budget"]


def test_settling_is_for_super_nets() -> None:
    plain = LoraLinear(nn.Linear(D_IN, D_OUT), INFO, rank=1, max_rank=1, scaling=1)
    adapters = Adapters([plain], budget=12, reference_rank=1, seed=0)
    with pytest.raises(TypeError, match="no paths to choose from"):
        SettlePaths((LORA,)).perform(adapters, None, 1)


@pytest.mark.parametrize(
    ("fields", "word"),
    [({"path": "nlnn"}, "five letters"), ({"path": "nlcnn"}, "C of l, v, n"), ({"kept": 30}, "must not exceed")],
)
def test_contradictions_are_refused(fields: dict[str, Any], word: str) -> None:
    with pytest.raises(ConfigError, match=word):
        build("glora", fields).check(20, 4)


@pytest.mark.parametrize("path", ["llnnn", "vlvvv", "lnlcc"])
def test_fixed_paths_stay_within_the_budget_where_a_rank_does(path: str) -> None:
    config = tiny_config("glora", strategy={"name": "glora", "path": path}, adapter__rank=4)
    adapters = make_trainer(config).adapters
    count = adapters.adapter_parameter_count()
    assert count["active"] <= count["budget"]
    assert all(1 <= module.rank < 4 for module in adapters)


@pytest.fixture(scope="module", params=["searched", "fixed"])
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a short run on a tiny model: with found paths, or with one that is no LoRA."""
    root = tmp_path_factory.mktemp("glora")
    fields = {"name": "glora"} | ({"path": "vlvcv"} if request.param == "fixed" else {"population": 8, "rounds": 1})
    values = tiny_values(save_tiny("bert", root / "model"), save_data(root), strategy=fields)
    outcome = training.train(parse_config(values), root / "runs")
    assert outcome.state == "finished", outcome.error
    return outcome.folder


def test_both_exports_agree_with_the_run(run: Path, tmp_path: Path) -> None:
    model = load_run(run)
    batch = model.base.tokenizer(["the film was great", "a dull story"], return_tensors="pt", padding=True)
    with torch.no_grad():
        expected = model.base.model(**batch).logits
        export_run(run, tmp_path / "merged", format="merged")
        plain = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "merged").eval()
        assert torch.allclose(plain(**batch).logits, expected, atol=1e-4)
        export_run(run, tmp_path / "peft", format="peft")
        base = transformers.AutoModelForSequenceClassification.from_pretrained(model.base.folder, num_labels=2)
        theirs = peft.PeftModel.from_pretrained(base, str(tmp_path / "peft")).eval()
        assert torch.allclose(theirs(**batch).logits, expected, atol=1e-4)
        with model.adapters.disabled():
            assert not torch.allclose(model.base.model(**batch).logits, expected, atol=1e-3)


def test_a_transposed_base_has_no_format_of_pefts() -> None:
    adapter = settled("vlnnn", base=Conv1D(D_OUT, D_IN))
    assert adapter.peft_forms() == {}
    with pytest.raises(NotMergeableError, match="--format merged"):
        adapter.low_rank()


def test_a_loop_of_ones_own_has_no_rows_to_search_on() -> None:
    with pytest.raises(ConfigError, match=r"search for paths needs rows .* set a path, such as nlnnn"):
        dynlora.attach(tiny_model(), strategy="glora", budget=2, steps=20)
    attached = dynlora.attach(tiny_model(), strategy="glora", budget=2, steps=20, path="vlnnv")
    assert not any(module.samples for module in attached.adapters)


def test_the_mean_over_processes_decides_between_candidates() -> None:
    """Each process ranks by its own rounding; were that to decide, they could settle on different paths."""
    trainer = make_trainer(tiny_config("glora", strategy={"name": "glora", "population": 4, "rounds": 1, "kept": 2}))
    asked: list[float] = []

    def over_processes(loss: torch.Tensor) -> torch.Tensor:
        asked.append(float(loss))
        return torch.tensor(1.0 if len(asked) != 3 else 0.1)  # the others like the third best

    trainer.adapters.over_processes = over_processes
    (edit,) = trainer.strategy.settled(trainer.adapters)
    history = edit.history
    assert len(asked) == history[-1]["tried"]
    assert history[-1]["best_loss"] == pytest.approx(0.1)
    assert edit.paths != (LORA,) * len(trainer.adapters)
