"""The loss of tokens, computed from hidden states in pieces, so that the logits of a batch are never held whole.

loss_t = log Σ_v exp(w_v · h_{t-1}) - w_{token_t} · h_{t-1}, in nats. The head is frozen, so its gradient is needed for
the hidden states alone: ∂loss_t/∂h = (softmax - onehot) W, known as soon as the logits of a piece are.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

PIECE_NUMBERS = 2**24
"""Logits that are held at once: 64 MiB in full precision."""


@dataclass(frozen=True)
class TokenOutput:
    """What a language model says of a batch before its head.

    Attributes:
        hidden: last hidden states, (batch, seq, d).
        head: makes logits, (n, words), of hidden states, (n, d).
        weight, bias: of a head that is one frozen product and nothing else; None for any other.
    """

    hidden: Tensor
    head: Callable[[Tensor], Tensor]
    weight: Tensor | None = None
    bias: Tensor | None = None

    def logits(self, rows: Tensor) -> Tensor:
        """Return the logits of hidden states, (n, d), as (n, words) in full precision."""
        return self.head(rows).float()


def next_tokens(model: nn.Module, inputs: Mapping[str, Tensor]) -> TokenOutput:
    """Return the last hidden states of a language model and its head.

    The model's own forward is called, so that hooks and several processes work; of its logits only those of one
    position are asked for, and not used. A model that does more to its logits than one product keeps them whole.
    """
    plain: Any = getattr(model, "module", model)
    known = inspect.signature(plain.forward).parameters
    options = {name: value for name, value in (("use_cache", False), ("logits_to_keep", 1)) if name in known}
    if not _is_one_product(plain, inputs):
        options.pop("logits_to_keep", None)
        return TokenOutput(model(**inputs, **options).logits, _same)
    head = plain.get_output_embeddings()
    with _last_hidden(plain.base_model) as seen:
        model(**inputs, **options)
    weight = head.weight if type(head) is nn.Linear and not head.weight.requires_grad else None
    return TokenOutput(seen[-1], head, weight, None if weight is None else head.bias)


_KNOWN: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()


@torch.no_grad()
def _is_one_product(model: Any, inputs: Mapping[str, Tensor]) -> bool:
    """Say whether a model's logits are its head's of the last hidden states; found out once, by trying."""
    if model not in _KNOWN:
        training = model.training
        model.eval()
        head = model.get_output_embeddings()
        with _last_hidden(model.base_model) as seen, torch.autocast(inputs["input_ids"].device.type, enabled=False):
            logits = model(input_ids=inputs["input_ids"][:1, :4]).logits
            own = None if head is None or not seen else head(seen[-1])
        model.train(training)
        _KNOWN[model] = own is not None and own.shape == logits.shape and bool(torch.allclose(own, logits))
    return _KNOWN[model]


def _same(rows: Tensor) -> Tensor:
    return rows


@contextmanager
def _last_hidden(backbone: nn.Module) -> Iterator[list[Tensor]]:
    """Collect what the backbone returns inside the block."""
    seen: list[Tensor] = []
    handle = backbone.register_forward_hook(lambda _module, _args, output: seen.append(output[0]))
    try:
        yield seen
    finally:
        handle.remove()


def token_loss(output: TokenOutput, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return the sum of token losses of each example, (batch,), part of the graph, and how many count, (batch,)."""
    states, targets, example = counting(output, labels)
    loss = _losses(output, states, targets)
    sums = torch.zeros(len(labels), device=labels.device).index_add(0, example, loss)
    return sums, torch.bincount(example, minlength=len(labels))


@torch.no_grad()
def judged_tokens(output: TokenOutput, labels: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return what a model makes of the tokens of each example.

    The sum of their losses, how many are predicted and how many count, (batch,); and the loss of each, (batch, seq),
    nats, NaN where a token does not count.
    """
    states, targets, example = counting(output, labels)
    zeros = torch.zeros(len(labels), device=labels.device)
    losses, right, each = zeros.clone(), zeros.clone(), []
    for piece in in_pieces(len(targets), words_of(output)):
        logits = output.logits(states[piece])
        each.append(F.cross_entropy(logits, targets[piece], reduction="none"))
        losses.index_add_(0, example[piece], each[-1])
        right.index_add_(0, example[piece], (logits.argmax(-1) == targets[piece]).float())
    return losses, right, torch.bincount(example, minlength=len(labels)).float(), _in_place(each, labels)


@torch.no_grad()
def token_losses(output: TokenOutput, labels: Tensor) -> Tensor:
    """Return the loss of each token of a batch in nats, (batch, seq), NaN where a token does not count."""
    states, targets, _ = counting(output, labels)
    pieces = [
        F.cross_entropy(output.logits(states[piece]), targets[piece], reduction="none")
        for piece in in_pieces(len(targets), words_of(output))
    ]
    return _in_place(pieces, labels)


def _in_place(pieces: Sequence[Tensor], labels: Tensor) -> Tensor:
    """Return losses of the tokens that count, in order, each in its place, (batch, seq), NaN elsewhere."""
    losses = torch.full(labels.shape, float("nan"), device=labels.device)
    if pieces:
        losses[:, 1:][labels[:, 1:] >= 0] = torch.cat(list(pieces))
    return losses


def counting(output: TokenOutput, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return hidden states and the tokens that follow them where these count, and the example each is of."""
    shifted = labels[:, 1:]
    rows, places = (shifted >= 0).nonzero(as_tuple=True)
    return output.hidden[rows, places], shifted[rows, places], rows


def _losses(output: TokenOutput, states: Tensor, targets: Tensor) -> Tensor:
    """Return the loss of each token, (n,)."""
    if output.weight is not None and states.requires_grad:
        return _FrozenHead.apply(states, output.weight, output.bias, targets)  # pyright: ignore[reportReturnType]
    if not states.requires_grad and not torch.is_grad_enabled():
        return _plain(output, states, targets)
    pieces = [
        checkpoint(_piece_loss, output, states[piece], targets[piece], use_reentrant=False)
        for piece in in_pieces(len(targets), words_of(output))
    ]
    return torch.cat(pieces) if pieces else states.sum(-1)  # pyright: ignore[reportArgumentType]


def _plain(output: TokenOutput, states: Tensor, targets: Tensor) -> Tensor:
    pieces = [_piece_loss(output, states[piece], targets[piece]) for piece in in_pieces(len(targets), words_of(output))]
    return torch.cat(pieces) if pieces else states.new_zeros(0)


def _piece_loss(output: TokenOutput, states: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(output.logits(states), targets, reduction="none")


def words_of(output: TokenOutput) -> int:
    """Return how many words the head knows, as far as that is known before it is called."""
    return output.hidden.shape[-1] if output.weight is None else len(output.weight)


def in_pieces(n: int, vocabulary: int) -> list[slice]:
    """Return the pieces of n positions in which logits are made."""
    size = max(16, PIECE_NUMBERS // vocabulary)
    return [slice(start, min(start + size, n)) for start in range(0, n, size)]


class _FrozenHead(torch.autograd.Function):
    """Token losses of a frozen head; the gradient of the states is computed with the loss, piece by piece."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Return the loss of each token, (n,), of states (n, d) and targets (n,)."""
        kind = states.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else states.dtype
        weight, bias = weight.to(dtype), None if bias is None else bias.to(dtype)
        losses, gradient = states.new_empty(len(states), dtype=torch.float32), torch.empty_like(states)
        with torch.autocast(kind, enabled=False):
            for piece in in_pieces(len(states), len(weight)):
                logits = F.linear(states[piece].to(dtype), weight, bias).float()
                norm = logits.logsumexp(-1)
                of_piece = targets[piece].unsqueeze(1)
                losses[piece] = norm - logits.gather(1, of_piece).squeeze(1)
                probability = logits.sub_(norm.unsqueeze(1)).exp_()
                probability.scatter_add_(1, of_piece, probability.new_full(of_piece.shape, -1.0))
                gradient[piece] = (probability.to(dtype) @ weight).to(states.dtype)
        ctx.save_for_backward(gradient)
        return losses

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        """Return the gradient of the states."""
        (gradient,) = ctx.saved_tensors
        return gradient * grads[0].unsqueeze(1).to(gradient.dtype), None, None, None


def token_divergence(teacher: TokenOutput, student: TokenOutput, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return KL(teacher || student) summed over the tokens of each text, (batch,), and how many count, (batch,).

    Args:
        teacher: of the same texts; no gradient reaches it.
        student: whose gradient is wanted.
        labels: tokens to be predicted, negative where none counts, (batch, seq).
    """
    states, targets, text = counting(student, labels)
    teacher_states = counting(teacher, labels)[0].detach()
    sums = torch.zeros(len(labels), device=labels.device)
    each = _divergences(teacher, teacher_states, student, states)
    return sums.index_add(0, text, each), torch.bincount(text, minlength=len(labels))


def _divergences(teacher: TokenOutput, teacher_states: Tensor, student: TokenOutput, states: Tensor) -> Tensor:
    """Return KL(teacher || student) of each token, (n,)."""
    if student.weight is not None and states.requires_grad:
        return _FrozenStudentHead.apply(states, student.weight, student.bias, teacher, teacher_states)  # pyright: ignore[reportReturnType]
    divergences = []
    for piece in in_pieces(len(states), words_of(student)):
        parts = (teacher, teacher_states[piece], student, states[piece])
        divergences.append(checkpoint(_piece, *parts, use_reentrant=False) if states.requires_grad else _piece(*parts))
    return torch.cat(divergences) if divergences else states.sum(-1)


def _piece(teacher: TokenOutput, teacher_states: Tensor, student: TokenOutput, states: Tensor) -> Tensor:
    with torch.no_grad():
        log_p = F.log_softmax(teacher.logits(teacher_states), -1)
    return (log_p.exp() * (log_p - F.log_softmax(student.logits(states), -1))).sum(-1)


class _FrozenStudentHead(torch.autograd.Function):
    """Divergences under a frozen head; the gradient of the states is computed with them, piece by piece."""

    @staticmethod
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, states: Tensor, weight: Tensor, bias: Tensor | None, teacher: TokenOutput, teacher_states: Tensor
    ) -> Tensor:
        """Return the divergence of each token, (n,), of states (n, d) and the teacher's states `wanted`, (n, d)."""
        divergences, gradient = states.new_empty(len(states), dtype=torch.float32), torch.empty_like(states)
        for piece in in_pieces(len(states), len(weight)):
            log_p = F.log_softmax(teacher.logits(teacher_states[piece]), -1)
            log_q = F.log_softmax(F.linear(states[piece], weight, bias).float(), -1)
            p = log_p.exp()
            divergences[piece] = (p * (log_p - log_q)).sum(-1)
            gradient[piece] = (log_q.exp_().sub_(p).to(weight.dtype) @ weight).to(states.dtype)
        ctx.save_for_backward(gradient)
        return divergences

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None, None]:
        """Return the gradient of the states."""
        (gradient,) = ctx.saved_tensors
        return gradient * grads[0].unsqueeze(1).to(gradient.dtype), None, None, None, None
