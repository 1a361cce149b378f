"""A frozen linear map and its low-rank update as one step of the graph: W0 x + s · B(e ⊙ g ⊙ A x).

Written out, autograd makes a tensor of the output's size for the update and one of the input's size for its gradient,
reads both again to add them, and keeps a mask or a masked copy beside. Here the update is accumulated into the output
and the gradient in place, and only the input, r numbers a token and what was dropped are kept. The r × n products are
formed with the components in front: as n × r they are several times slower on a processor.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from dynlora.engine.randomness import stream_seed

SEEDS = 2**63 - 1
"""Seeds are drawn from 0 up to this."""


def dropped_positions(seed: int, n: int, probability: float) -> Tensor:
    """Return which of n entries are dropped, each independently, as ascending positions.

    Args:
        seed: of the draw.
        n: entries.
        probability: that an entry is dropped, between 0 and 1, both excluded.
    """
    generator = np.random.SFC64(seed)
    mean = n * probability
    draws = int(mean + 6 * math.sqrt(mean) + 16)  # enough for all but one in a billion draws
    last, parts = -1, []
    while last < n:
        gaps = generator.random_raw(-(-draws // 2)).view(np.uint32).astype(np.float32)
        gaps += 0.5
        gaps *= np.float32(2**-32)  # uniform in (0, 1]
        np.log(gaps, out=gaps)
        gaps *= np.float32(1 / math.log1p(-probability))  # the whole part of this is geometric
        positions = gaps.astype(np.int64)
        positions += 1
        positions[0] += last
        np.cumsum(positions, out=positions)
        last = int(positions[-1])
        parts.append(positions)
    drawn = parts[0] if len(parts) == 1 else np.concatenate(parts)
    return torch.from_numpy(drawn[: np.searchsorted(drawn, n)])


def zero_(tensor: Tensor, dropped: Tensor) -> Tensor:
    """Zero the dropped entries of a contiguous tensor in place: positions, or a mask that is true where dropped."""
    if dropped.dtype is torch.bool:
        return tensor.masked_fill_(dropped.view(tensor.shape), 0)
    tensor.view(-1).index_fill_(0, dropped, 0)
    return tensor


class DropoutStreams:
    """What the adapters drop as a pure function of (seed, module, step, forward), so that no stream shifts another."""

    def __init__(self, seed: int) -> None:
        """Start at step 0."""
        self.seed = seed
        self.key: tuple[int, ...] = (0,)
        self._generators: dict[torch.device, torch.Generator] = {}

    def at(self, *key: int) -> None:
        """Move to a step, forward and process: the key of the draws that follow."""
        self.key = key

    def dropped(self, name: str, like: Tensor, probability: float) -> Tensor:
        """Return what module `name` drops of a tensor: positions on a processor, elsewhere a mask shaped as `like`."""
        seed = stream_seed(self.seed, name, "dropout", *self.key)
        if like.device.type == "cpu":
            return dropped_positions(seed, like.numel(), probability)
        generator = self._generators.get(like.device)
        if generator is None:
            generator = self._generators[like.device] = torch.Generator(device=like.device)
        return torch.rand(like.shape, generator=generator.manual_seed(seed), device=like.device) < probability

    def mask(self, name: str, like: Tensor, keep: float) -> Tensor:
        """Return the same as a mask shaped as `like`: true where an entry is kept."""
        ones = torch.ones(like.shape, dtype=torch.bool, device=like.device)
        return zero_(ones, self.dropped(name, like, 1 - keep))


class _Drop(torch.autograd.Function):
    """x / keep with entries dropped; keeps the positions for the backward pass, nothing else."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, dropped: Tensor, factor: float) -> Tensor:
        """Return factor · x, zero where dropped."""
        ctx.save_for_backward(dropped)
        ctx.factor = factor
        return zero_((x * factor).contiguous(), dropped)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        """Return the gradient of x."""
        (dropped,) = ctx.saved_tensors
        return zero_((gradient * ctx.factor).contiguous(), dropped), None, None


class SparseDropout(nn.Dropout):
    """`nn.Dropout` with the same law and a cheaper draw on a processor; elsewhere, and in eval mode, the same code.

    Its seed comes from torch's global stream, as the original's numbers do: the loop seeds it for every forward, and
    gradient checkpointing sets it back before it runs a block again.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Drop entries while training."""
        if not self.training or not 0 < self.p < 1 or input.device.type != "cpu" or self.inplace:
            return F.dropout(input, self.p, self.training, self.inplace)
        seed = int(torch.randint(SEEDS, ()))
        return _Drop.apply(input, dropped_positions(seed, input.numel(), self.p), 1 / (1 - self.p))  # pyright: ignore


def use_sparse_dropout(model: nn.Module) -> None:
    """Let every `nn.Dropout` of a model draw sparsely; the modules have no weights, so what is saved stays the same."""
    for module in model.modules():
        if type(module) is nn.Dropout:
            module.__class__ = SparseDropout


@dataclass(frozen=True)
class Frozen:
    """The frozen map in the precision it is computed in.

    Attributes:
        weight: (d_out, d_in), or (d_in, d_out) where transposed.
        bias: (d_out,), or None.
        transposed: whether the weight is as Conv1D has it.
    """

    weight: Tensor
    bias: Tensor | None
    transposed: bool

    def __call__(self, x: Tensor) -> Tensor:
        """Return W0 x + bias, with the same product that the frozen module takes: equal to the last bit."""
        if not self.transposed:
            return F.linear(x, self.weight, self.bias)
        rows = x.reshape(-1, x.shape[-1])
        out = rows @ self.weight if self.bias is None else torch.addmm(self.bias, rows, self.weight)
        return out.view(*x.shape[:-1], -1)


def low_rank_linear(  # noqa: PLR0913 - the terms of one formula
    x: Tensor,
    frozen: Frozen,
    A: Tensor,
    B: Tensor,
    *,
    live: int,
    scaling: float,
    scale: Tensor | None = None,
    gate: Tensor | None = None,
    dropped: Tensor | None = None,
) -> Tensor:
    """Return W0 x + scaling · B[:, :live] (scale ⊙ gate ⊙ A[:live] x), (batch, ..., d_out).

    Args:
        x: (batch, ..., d_in).
        frozen: gets no gradient; its dtype is that of the computation and the result.
        A: (max_rank, d_in).
        B: (d_out, max_rank).
        live: leading components that count.
        scaling: constant factor.
        scale: per-component factor, (live,).
        gate: factors for each of equal parts of the rows, (parts,) for all components or (live, parts); not
            zero where a gradient is asked for.
        dropped: entries of x that the update does not see, as positions or a mask; see `dropout.zero_`.
    """
    return _LowRankLinear.apply(x, A, B, scale, gate, dropped, frozen, live, scaling)  # pyright: ignore


class _LowRankLinear(torch.autograd.Function):
    """Forward and backward of `low_rank_linear`; gradients of A, B, scale and gate come in their own dtype."""

    @staticmethod
    def forward(  # noqa: PLR0913 - what `apply` is given
        ctx: Any,
        x: Tensor,
        A: Tensor,
        B: Tensor,
        scale: Tensor | None,
        gate: Tensor | None,
        dropped: Tensor | None,
        frozen: Frozen,
        live: int,
        scaling: float,
    ) -> Tensor:
        """Compute the output; see `low_rank_linear`."""
        dtype = frozen.weight.dtype
        computed = x.to(dtype)
        out = frozen(computed)
        rows = computed.reshape(-1, computed.shape[-1])
        if dropped is not None and live:
            rows = zero_(rows.clone() if computed is x else rows, dropped)
        down, up = A[:live].to(dtype), B[:, :live].to(dtype)
        factor = _factor(scaling, scale, gate)
        inner = down @ rows.t()
        # Memory is what this function exists for. Kept are the input and r numbers per token; the update itself, as
        # wide as the output, is added in place and not kept. `inner`, before the factor, is kept only where the
        # gradient of scale needs it: a scale may be zero.
        needs_factor = ctx.needs_input_grad[3]
        weighted = _weigh_(inner.clone() if needs_factor else inner, factor)
        if live:
            out.view(-1, out.shape[-1]).addmm_(weighted.t(), up.t())
        saved_factor = factor if isinstance(factor, Tensor) else None
        ctx.save_for_backward(
            rows, inner if needs_factor else None, weighted, down, up, scale, gate, saved_factor, dropped
        )
        ctx.frozen, ctx.scaling = frozen, scaling
        ctx.x, ctx.A, ctx.B = (x.shape, x.dtype), (A.shape, A.dtype), (B.shape, B.dtype)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
        """Return the gradients of x, A, B, scale and gate."""
        rows, inner, weighted, down, up, scale, gate, factor, dropped = ctx.saved_tensors
        weight: Tensor = ctx.frozen.weight
        of_x, of_a, of_b, of_scale, of_gate = ctx.needs_input_grad[:5]
        grad_out = gradient.reshape(-1, gradient.shape[-1]).to(weight.dtype)
        grad_weighted = up.t() @ grad_out.t()
        grad_x = grad_a = grad_b = grad_scale = grad_gate = None
        if of_scale:
            grad_scale = _scale_gradient(grad_weighted * inner, ctx.scaling, scale, gate)
        if of_gate:
            grad_gate = _gate_gradient(grad_weighted * weighted, gate)
        grad_inner = _weigh_(grad_weighted, ctx.scaling if factor is None else factor)
        if of_x:
            grad_x = grad_out @ (weight.t() if ctx.frozen.transposed else weight)
            _add_update(grad_x, grad_inner, down, dropped)
            grad_x = grad_x.view(ctx.x[0]).to(ctx.x[1])
        if of_a:
            grad_a = _with_room(grad_inner @ rows, 0, *ctx.A)
        if of_b:
            grad_b = _with_room((weighted @ grad_out).t(), 1, *ctx.B)
        return grad_x, grad_a, grad_b, grad_scale, grad_gate, None, None, None, None


def _with_room(gradient: Tensor, dim: int, shape: torch.Size, dtype: torch.dtype) -> Tensor:
    """Return the gradient of the live components as that of the whole tensor, zero where nothing is live."""
    if gradient.shape == shape:
        return gradient.to(dtype)
    whole = gradient.new_zeros(shape, dtype=dtype)
    whole.narrow(dim, 0, gradient.shape[dim]).copy_(gradient)
    return whole


def _factor(scaling: float, scale: Tensor | None, gate: Tensor | None) -> Tensor | float:
    """Return scaling · scale ⊙ gate, a number, (live, shares or 1, 1) or (shares, 1), not rounded: gates are near 1."""
    factor: Tensor | float = scaling
    if scale is not None:
        factor = scale.view(-1, 1, 1) * factor
    return factor if gate is None else gate.unsqueeze(-1) * factor


def _weigh_(inner: Tensor, factor: Tensor | float) -> Tensor:
    """Multiply inner, (live, rows), by its factor in place; return it."""
    if not isinstance(factor, Tensor):
        return inner.mul_(factor)
    _of_shares(inner, factor.shape[-2]).mul_(factor)
    return inner


def _of_shares(tensor: Tensor, shares: int) -> Tensor:
    """Return (live, rows) as (live, parts, rows of a part)."""
    live, rows = tensor.shape
    return tensor.view(live, shares, rows // shares)


def _scale_gradient(product: Tensor, scaling: float, scale: Tensor, gate: Tensor | None) -> Tensor:
    """Return the gradient of scale, (live,), from ∂L/∂weighted ⊙ inner, (live, rows)."""
    shares = 1 if gate is None else gate.shape[-1]
    total = _of_shares(product, shares).sum(2, dtype=torch.promote_types(product.dtype, torch.float32)) * scaling
    return (total if gate is None else total * gate).sum(1).to(scale.dtype)


def _gate_gradient(product: Tensor, gate: Tensor) -> Tensor:
    """Return the gradient of gate from ∂L/∂weighted ⊙ weighted, (live, rows), in which the gate is a factor."""
    over = 2 if gate.dim() == 2 else (0, 2)
    dtype = torch.promote_types(product.dtype, torch.float32)
    return (_of_shares(product, gate.shape[-1]).sum(over, dtype=dtype) / gate).to(gate.dtype)


def _add_update(grad_x: Tensor, grad_inner: Tensor, down: Tensor, dropped: Tensor | None) -> None:
    """Add the update's share to the gradient of x in place, but where entries were dropped."""
    if not len(down):
        return
    if dropped is None:
        grad_x.addmm_(grad_inner.t(), down)
    elif dropped.dtype is torch.bool:
        grad_x.add_(zero_(grad_inner.t() @ down, dropped))
    else:  # few entries: put their old values back afterwards
        flat = grad_x.view(-1)
        before = flat.index_select(0, dropped)
        grad_x.addmm_(grad_inner.t(), down)
        flat.index_copy_(0, dropped, before)
