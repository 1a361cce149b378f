"""The fused update against the formula written out: values, every gradient, precisions, and what surrounds it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint
from transformers.pytorch_utils import Conv1D

from dynlora.engine.model.gates import GateReader, Gates
from dynlora.engine.model.lora_linear import LoraLinear
from dynlora.engine.model.lowrank_function import DropoutStreams, Frozen, low_rank_linear
from dynlora.engine.model.modules import ModuleInfo
from tests.pairwise import pairwise

BATCH, SEQ, D_IN, D_OUT, MAX_RANK = 2, 3, 4, 5, 4


def draw(*shape: int, grad: bool = True) -> Tensor:
    """Return random doubles."""
    return torch.randn(*shape, dtype=torch.double).requires_grad_(grad)


@pairwise(
    "live, gates, scaled, dropping, frozen_layer",
    [0, 1, MAX_RANK],
    ["none", "one", "each"],
    [False, True],
    ["nothing", "positions", "mask"],
    [(False, True), (True, True), (False, False)],
)
def test_every_gradient_is_the_derivative(
    live: int, gates: str, scaled: bool, dropping: str, frozen_layer: tuple[bool, bool]
) -> None:
    torch.manual_seed(0)
    transposed, biased = frozen_layer
    weight = draw(*((D_IN, D_OUT) if transposed else (D_OUT, D_IN)), grad=False)
    frozen = Frozen(weight, draw(D_OUT, grad=False) if biased else None, transposed)
    positions = torch.tensor([0, 5, 6, 23])
    mask = torch.zeros(BATCH * SEQ * D_IN, dtype=torch.bool).index_fill_(0, positions, True).view(BATCH, SEQ, D_IN)
    dropped = {"nothing": None, "positions": positions, "mask": mask}[dropping]
    x, A, B = draw(BATCH, SEQ, D_IN), draw(MAX_RANK, D_IN), draw(D_OUT, MAX_RANK)
    gate = {"none": None, "one": draw(1, BATCH), "each": draw(live, BATCH)}[gates]
    factors: list[Tensor | None] = [draw(live) if scaled else None, gate]

    def fused(x: Tensor, A: Tensor, B: Tensor, scale: Tensor | None, gate: Tensor | None) -> Tensor:
        return low_rank_linear(x, frozen, A, B, live=live, scaling=0.7, scale=scale, gate=gate, dropped=dropped)

    def plain(x: Tensor, A: Tensor, B: Tensor, scale: Tensor | None, gate: Tensor | None) -> Tensor:
        out = x @ (weight if transposed else weight.t())
        out = out if frozen.bias is None else out + frozen.bias
        inner = (x if dropped is None else x.masked_fill(mask, 0.0)) @ A[:live].t()
        inner = inner if scale is None else inner * scale
        inner = inner if gate is None else inner * gate.t().view(BATCH, 1, -1)
        return out + 0.7 * inner @ B[:, :live].t()

    assert torch.allclose(fused(x, A, B, *factors), plain(x, A, B, *factors), atol=1e-12)
    assert torch.autograd.gradcheck(fused, (x, A, B, *factors))


def module(kind: str = "linear", *, rank: int = 3, probes: int = 0, bias: bool = True, seed: int = 0) -> LoraLinear:
    """Return an adapter with random A and B, a scale and, for `gated`, gates of two sequences."""
    torch.manual_seed(seed)
    base: nn.Module = Conv1D(6, 8) if kind == "conv1d" else nn.Linear(8, 6, bias=bias)
    adapter = LoraLinear(base, ModuleInfo("block.0.a", 0, "a", 8, 6), rank=rank, max_rank=5, scaling=0.5)
    adapter.probes = probes
    adapter.streams = DropoutStreams(0)
    with torch.no_grad():
        adapter.lora_A[: rank + probes] = torch.randn(rank + probes, 8)
        adapter.lora_B[:, :rank] = torch.randn(6, rank)
    return adapter


def gate(adapter: LoraLinear, values: Tensor) -> None:
    """Give an adapter gates, (batch,), or (batch, max_rank) for each component's own."""
    gates = Gates(1, 4, 0, mode="module" if values.dim() == 1 else "rank", max_rank=5)
    gates._columns = (values,)
    adapter.gates = GateReader(gates, 0)


def outcome(adapter: LoraLinear, x: Tensor, *others: Tensor, fused: bool) -> list[Tensor]:
    """Return output and gradients of x, A, B and `others`."""
    adapter.fused = fused
    inputs = [t for t in (x, adapter.lora_A, adapter.lora_B, *others) if t.requires_grad]
    out = adapter(x)
    weight = torch.linspace(-1, 1, out.numel(), device=out.device).view(out.shape)
    return [out, *torch.autograd.grad((out * weight).sum(), inputs)]


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(["linear", "conv1d"]),
    st.integers(0, 4),
    st.integers(0, 1),
    st.sampled_from(["none", "one", "each"]),
    st.booleans(),
    st.sampled_from([0.0, 0.1, 0.9]),
    st.sampled_from([(4, 8), (2, 3, 8), (2, 2, 2, 8), (6, 8)]),
    st.booleans(),
)
def test_fused_equals_plain(
    kind: str, rank: int, probes: int, gates: str, scaled: bool, dropout: float, shape: tuple[int, ...], deep: bool
) -> None:
    adapter = module(kind, rank=rank, probes=probes)
    adapter.dropout = dropout
    others: list[Tensor] = []
    if scaled:
        adapter.use_scale(0.8, trainable=True)
    if gates != "none":
        values = torch.tensor([0.5, 1.5])
        values = values if gates == "one" else values.unsqueeze(1) + torch.arange(5) / 10
        others.append(values.requires_grad_())
        gate(adapter, others[0])
    x = torch.randn(shape, requires_grad=deep)
    for mine, theirs in zip(
        outcome(adapter, x, *others, fused=True), outcome(adapter, x, *others, fused=False), strict=True
    ):
        assert mine.dtype == theirs.dtype
        assert torch.allclose(mine, theirs, atol=1e-5)


def test_without_an_update_the_output_is_the_base_modules_to_the_bit() -> None:
    for kind in ("linear", "conv1d"):
        for autocast in (False, True):
            adapter = module(kind)
            with torch.no_grad():
                adapter.lora_B.zero_()
            x = torch.randn(2, 7, 8)
            with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
                assert torch.equal(adapter(x), adapter.base_layer(x))


def test_autocast_computes_in_bf16_and_trains_in_fp32() -> None:
    adapter = module()
    gate(adapter, torch.tensor([0.5, 1.5], requires_grad=True))
    x = torch.randn(2, 3, 8, requires_grad=True)
    gradients = {}
    for fused in (True, False):
        with torch.autocast("cpu", torch.bfloat16):
            gradients[fused] = outcome(adapter, x, fused=fused)
    for mine, theirs in zip(gradients[True], gradients[False], strict=True):
        assert mine.dtype == theirs.dtype
        assert torch.allclose(mine.float(), theirs.float(), rtol=0.03, atol=0.05)
    assert gradients[True][0].dtype is torch.bfloat16
    assert {t.dtype for t in gradients[True][1:]} == {torch.float32}


def test_a_gate_near_one_is_not_rounded_away_in_bf16() -> None:
    adapter = module()
    with torch.no_grad():
        adapter.base_layer.weight.zero_()
        adapter.base_layer.bias.zero_()
    x = torch.randn(2, 64, 8)
    with torch.autocast("cpu", torch.bfloat16):
        plain = adapter(x)
        gate(adapter, torch.full((2,), 1.003))
        assert not torch.equal(adapter(x), plain)


def test_the_bf16_copy_follows_the_weights() -> None:
    adapter, x = module(), torch.randn(2, 8)
    with torch.autocast("cpu", torch.bfloat16):
        adapter(x)
        kept = adapter._cast
        adapter(x)
        assert adapter._cast is kept
        assert torch.equal(kept[1].weight, adapter.base_layer.weight.bfloat16())
        with torch.no_grad():
            adapter.base_layer.weight.mul_(2)
        before = adapter(x)
        adapter.enabled = False
        with torch.no_grad():
            adapter.lora_B.zero_()
        adapter.enabled = True
        assert torch.equal(adapter(x), adapter.base_layer(x))
        assert not torch.equal(before, adapter(x))
    assert "_cast" not in adapter.state_dict()


def test_an_evaluation_may_cast_first() -> None:
    adapter, x = module(), torch.randn(2, 8)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        adapter(x)
    with torch.autocast("cpu", torch.bfloat16):
        adapter(x).float().sum().backward()
    assert adapter.lora_A.grad is not None


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_a_block_that_is_run_again_gives_the_same_gradients(dropout: float) -> None:
    adapter, x = module(), torch.randn(2, 3, 8, requires_grad=True)
    adapter.dropout = dropout
    expected = outcome(adapter, x, fused=True)
    out = checkpoint(adapter, x, use_reentrant=False)
    weight = torch.linspace(-1, 1, out.numel()).view(out.shape)
    gradients = torch.autograd.grad((out * weight).sum(), [x, adapter.lora_A, adapter.lora_B])
    for mine, theirs in zip(gradients, expected[1:], strict=True):
        assert torch.equal(mine, theirs)


def test_without_a_gradient_of_x_nothing_is_computed_for_it() -> None:
    adapter, counted = module(), []

    class Counting(TorchDispatchMode):
        """Counts the products."""

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            """Count and compute."""
            counted.append(func.__name__.partition(".")[0])
            return func(*args, **kwargs or {})

    for needs in (False, True):
        out = adapter(torch.randn(2, 8, requires_grad=needs)).sum()
        counted.clear()
        with Counting():
            out.backward()
        assert counted.count("mm") == (4 if needs else 3)
        assert counted.count("addmm_") == (1 if needs else 0)


def test_a_base_module_with_hooks_or_of_another_kind_computes_its_own_product() -> None:
    seen: list[Tensor] = []
    adapter = module()
    adapter.base_layer.register_forward_hook(lambda _module, _args, out: seen.append(out))
    adapter(torch.randn(2, 8))
    assert len(seen) == 1

    class Doubled(nn.Linear):
        """Stands for a quantised module."""

        def forward(self, input: Tensor) -> Tensor:
            """Return twice the product."""
            return 2 * super().forward(input)

    other = LoraLinear(Doubled(8, 6), adapter.info, rank=0, max_rank=1, scaling=1.0)
    x = torch.randn(2, 8)
    assert torch.equal(other(x), other.base_layer(x))


def test_transforms_of_torch_see_plain_operations() -> None:
    adapter = module()
    x = torch.randn(5, 3, 8)
    assert torch.allclose(torch.func.vmap(adapter)(x), adapter(x), atol=1e-6)
