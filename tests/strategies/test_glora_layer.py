"""GLoRA's module: every path starts as the base, merges exactly and agrees with PEFT's on the same tensors."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft.tuners.glora.config import GloraConfig
from peft.tuners.glora.layer import GloraLinear as PeftGloraLinear
from torch import nn
from transformers.pytorch_utils import Conv1D

from dynlora.engine.loop.step_signals import spectrum
from dynlora.engine.model.adapters import Adapters
from dynlora.engine.model.modules import ModuleInfo
from dynlora.errors import NotMergeableError
from dynlora.strategies.glora import LORA, PATHS, GloraLinear, path_cost

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


@pytest.mark.parametrize(("bias", "rank", "times"), [(True, 4, 2.75), (True, 1, 3.5), (False, 4, 2.0)])
def test_a_super_net_holds_as_many_numbers_as_its_cost_says(bias: bool, rank: int, times: float) -> None:
    d = 1000
    module = GloraLinear(nn.Linear(d, d, bias=bias), ModuleInfo("m", 0, "m", d, d), rank=rank, scaling=1.0)
    numbers = sum(tensor.numel() for tensor in module.adapter_parameters().values())
    assert numbers / (rank * 2 * d) == pytest.approx(times, rel=1e-3)  # 2.5 + 1 / r, of LoRA's


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


def test_a_transposed_base_has_no_format_of_pefts() -> None:
    adapter = settled("vlnnn", base=Conv1D(D_OUT, D_IN))
    assert adapter.peft_forms() == {}
    with pytest.raises(NotMergeableError, match="--format merged"):
        adapter.low_rank()
