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

from dynlora.engine.dropout import zero_


@dataclass(frozen=True)
class Frozen:
    """The frozen map in the precision it is computed in.

    Attributes:
        weight: (d_out, d_in), or (d_in, d_out) where transposed.
        bias: (d_out,), or None.
        transposed: whether the weight lies as Conv1D has it.
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
        gate: one factor for each of equal shares of the rows, such as (batch,).
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
        inner = A[:live].to(dtype) @ rows.t()
        if live:
            weighted = _weigh(inner, scale, gate)
            out.view(-1, out.shape[-1]).addmm_(weighted.t(), B[:, :live].to(dtype).t(), alpha=scaling)
        ctx.save_for_backward(rows, inner, A, B, scale, gate, dropped, frozen.weight)
        ctx.transposed, ctx.live, ctx.scaling = frozen.transposed, live, scaling
        ctx.shape, ctx.dtype = x.shape, x.dtype
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
        """Return the gradients of x, A, B, scale and gate."""
        rows, inner, A, B, scale, gate, dropped, weight = ctx.saved_tensors
        live, dtype = ctx.live, weight.dtype
        of_x, of_a, of_b, of_scale, of_gate = ctx.needs_input_grad[:5]
        grad_out = gradient.reshape(-1, gradient.shape[-1]).to(dtype)
        grad_weighted = (B[:, :live] * ctx.scaling).t().to(dtype) @ grad_out.t()
        grad_inner = _weigh(grad_weighted, scale, gate)
        found: list[Tensor | None] = [None] * 5
        if of_x:
            grad_x = grad_out @ (weight.t() if ctx.transposed else weight)
            _add_update(grad_x, grad_inner, A[:live].to(dtype), dropped)
            found[0] = grad_x.view(ctx.shape).to(ctx.dtype)
        if of_a:
            found[1] = torch.zeros_like(A)
            found[1][:live] = grad_inner @ rows
        if of_b:
            found[2] = torch.zeros_like(B)
            found[2][:, :live] = (_weigh(inner, scale, gate) @ grad_out).t().mul_(ctx.scaling)
        if of_scale:
            found[3] = (_weigh(grad_weighted, None, gate) * inner).sum(1).to(scale.dtype)
        if of_gate:
            product = _weigh(grad_weighted, scale, None) * inner
            found[4] = product.sum(0).view(gate.numel(), -1).sum(1).view(gate.shape).to(gate.dtype)
        return (*found, None, None, None, None)


def _weigh(inner: Tensor, scale: Tensor | None, gate: Tensor | None) -> Tensor:
    """Return inner, (live, rows), times each component's scale and each share of the rows' gate."""
    if scale is not None:
        inner = inner * scale.to(inner.dtype).unsqueeze(1)
    if gate is not None:
        shares = inner.view(inner.shape[0], gate.numel(), inner.shape[1] // gate.numel())
        inner = (shares * gate.reshape(1, -1, 1).to(inner.dtype)).view(inner.shape)
    return inner


def _add_update(grad_x: Tensor, grad_inner: Tensor, A: Tensor, dropped: Tensor | None) -> None:
    """Add the update's share to the gradient of x in place, but where entries were dropped."""
    if not len(A):
        return
    if dropped is None:
        grad_x.addmm_(grad_inner.t(), A)
    elif dropped.dtype is torch.bool:
        grad_x.add_(zero_(grad_inner.t() @ A, dropped))
    else:  # few entries: put their old values back afterwards
        flat = grad_x.view(-1)
        kept = flat.index_select(0, dropped)
        grad_x.addmm_(grad_inner.t(), A)
        flat.index_copy_(0, dropped, kept)
