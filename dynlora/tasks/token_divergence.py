"""How far one language model's next tokens are from another's, in pieces, so that logits are never held whole.

KL_t = Σ_v p_v (log p_v - log q_v), in nats, at temperature 1: p is the teacher's, q the student's. The student's head
is frozen, so its gradient is needed for the hidden states alone: ∂KL_t/∂h = (q - p) W.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from dynlora.tasks.token_loss import TokenOutput, counting, in_pieces, words_of


def token_divergence(teacher: TokenOutput, student: TokenOutput, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return KL(teacher || student) summed over the tokens of each text, (batch,), and how many count, (batch,).

    Args:
        teacher: of the same texts; no gradient reaches it.
        student: whose gradient is wanted.
        labels: tokens to be predicted, negative where none counts, (batch, seq).
    """
    states, targets, text = counting(student, labels)
    wanted = counting(teacher, labels)[0].detach()
    sums = torch.zeros(len(labels), device=labels.device)
    each = _divergences(teacher, wanted, student, states)
    return sums.index_add(0, text, each), torch.bincount(text, minlength=len(labels))


def _divergences(teacher: TokenOutput, wanted: Tensor, student: TokenOutput, states: Tensor) -> Tensor:
    """Return KL(teacher || student) of each token, (n,)."""
    if student.weight is not None and states.requires_grad:
        return _FrozenHead.apply(states, student.weight, student.bias, teacher, wanted)  # pyright: ignore[reportReturnType]
    found = []
    for piece in in_pieces(len(states), words_of(student)):
        parts = (teacher, wanted[piece], student, states[piece])
        found.append(checkpoint(_piece, *parts, use_reentrant=False) if states.requires_grad else _piece(*parts))
    return torch.cat(found) if found else states.sum(-1)


def _piece(teacher: TokenOutput, wanted: Tensor, student: TokenOutput, states: Tensor) -> Tensor:
    with torch.no_grad():
        log_p = F.log_softmax(teacher.logits(wanted), -1)
    return (log_p.exp() * (log_p - F.log_softmax(student.logits(states), -1))).sum(-1)


class _FrozenHead(torch.autograd.Function):
    """Divergences under a frozen head; the gradient of the states is computed with them, piece by piece."""

    @staticmethod
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, states: Tensor, weight: Tensor, bias: Tensor | None, teacher: TokenOutput, wanted: Tensor
    ) -> Tensor:
        """Return the divergence of each token, (n,), of states (n, d) and the teacher's states `wanted`, (n, d)."""
        found, gradient = states.new_empty(len(states), dtype=torch.float32), torch.empty_like(states)
        for piece in in_pieces(len(states), len(weight)):
            log_p = F.log_softmax(teacher.logits(wanted[piece]), -1)
            log_q = F.log_softmax(F.linear(states[piece], weight, bias).float(), -1)
            p = log_p.exp()
            found[piece] = (p * (log_p - log_q)).sum(-1)
            gradient[piece] = (log_q.exp_().sub_(p).to(weight.dtype) @ weight).to(states.dtype)
        ctx.save_for_backward(gradient)
        return found

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None, None]:
        """Return the gradient of the states."""
        (gradient,) = ctx.saved_tensors
        return gradient * grads[0].unsqueeze(1).to(gradient.dtype), None, None, None, None
