"""A frozen linear map and its low-rank update as one step of the graph: W0 x + s · B(e ⊙ g ⊙ A x).

Written out, autograd makes a tensor of the output's size for the update and one of the input's size for its gradient,
reads both again to add them, and keeps a mask or a masked copy beside. Here the update is accumulated into the output
and the gradient in place, and only the input, r numbers a token and what was dropped are kept. The r × n products are
formed with the components in front: as n × r they are several times slower on a processor.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from dynlora.engine.model.dropout import zero_


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
