"""What a language model makes of each token of a text: its log-probability, and which tokens it expected instead."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dynlora.engine.data.batches import IGNORED
from dynlora.engine.data.text_data import Rows
from dynlora.engine.evaluation.inference import AdaptedModel
from dynlora.tasks.token_loss import token_loss, token_losses

TOP = 5
"""Alternatives of a token that are kept."""


@dataclass(frozen=True)
class Scored:
    """A text after its prompt, token by token.

    Attributes:
        log_probability: log p(token | tokens before it) in nats, (n,).
        top: the most probable tokens at each place, (n, k), the best first.
        top_probability: their probabilities, (n, k).
    """

    log_probability: np.ndarray
    top: np.ndarray
    top_probability: np.ndarray

    @property
    def total(self) -> float:
        """The log-probability of the whole text, nats."""
        return float(self.log_probability.sum(dtype=np.float64))

    @property
    def best(self) -> np.ndarray:
        """The most probable token at each place, (n,)."""
        return self.top[:, 0]


@torch.no_grad()
def scored(model: AdaptedModel, prompt: Sequence[int], ids: Sequence[int], top: int = TOP) -> Scored:
    """Return what the model, as it is switched now, makes of tokens after a prompt.

    Args:
        model: that writes texts.
        prompt: tokens before the text, at least one.
        ids: tokens of the text, n of them.
        top: alternatives that are kept.
    """
    base = model.base.model.eval()
    tokens = torch.tensor([[*prompt, *ids]], device=base.device)
    with model.autocast():
        logits: Any = base(input_ids=tokens, attention_mask=torch.ones_like(tokens), use_cache=False).logits
    n = len(ids)
    logs = logits[0, len(prompt) - 1 : len(prompt) - 1 + n].float().log_softmax(-1)
    chosen = logs.gather(1, tokens[0, len(prompt) :].unsqueeze(1)).squeeze(1)
    best = logs.topk(min(top, logs.shape[1]))
    return Scored(chosen.cpu().numpy(), best.indices.cpu().numpy(), best.values.exp().cpu().numpy())


def ablated(
    model: AdaptedModel, prompt: Sequence[int], ids: Sequence[int], order: Sequence[int] | None = None
) -> Iterator[tuple[int, float, bool]]:
    """Yield for each module (its position, log p(text | all) - log p(text | without it) in nats, changes).

    Above zero the module makes the text more probable. `changes`: at some place another token is the most probable
    one without the module, so that greedy decoding would not write the same.

    Args:
        model: that writes texts.
        prompt: tokens before the text, at least one.
        ids: tokens of the text.
        order: positions of the modules in the order to measure them; None as they are.
    """
    whole = scored(model, prompt, ids, 1)
    for index in range(len(model.adapters)) if order is None else order:
        if not model.adapters[index].rank:
            yield index, 0.0, False
            continue
        with model.adapters.disabled([index]):
            without = scored(model, prompt, ids, 1)
        yield index, whole.total - without.total, bool((without.best != whole.best).any())


def estimated(model: AdaptedModel, prompt: Sequence[int], ids: Sequence[int]) -> np.ndarray:
    """Return to first order what each module adds to log p(text), nats, (n_modules,): one forward and one backward.

    ∂ log p(text) / ∂ f_m at f_m = 1, f_m a factor on the update of module m. It is exact where log p is linear in the
    update; `ablated` measures the effect itself, with a forward for each module.
    """
    base = model.base.model.eval()
    device = next(base.parameters()).device
    tokens = torch.tensor([[*prompt, *ids]], device=device)
    labels = tokens.clone()
    labels[0, : len(prompt)] = IGNORED
    with torch.enable_grad(), _factors(model) as factors, model.autocast():
        output: Any = model.strategy.forward(base, {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)})
        loss, _ = token_loss(output, labels)
        gradients = torch.autograd.grad(-loss.sum(), factors, allow_unused=True)
    return np.array([0.0 if one is None else float(one) for one in gradients])


@contextmanager
def _factors(model: AdaptedModel) -> Iterator[list[Tensor]]:
    """Put a factor of one on the update of each module inside the block, and give the factors."""
    factors = [torch.ones((), device=module.lora_A.device, requires_grad=True) for module in model.adapters]
    handles = [
        module.register_forward_hook(_scaled_by(factor)) for module, factor in zip(model.adapters, factors, strict=True)
    ]
    try:
        yield factors
    finally:
        for handle in handles:
            handle.remove()


def _scaled_by(factor: Tensor) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]:
    """Return a hook that multiplies a module's update; the frozen map needs no gradient of its own."""

    def scale(module: Any, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        with torch.no_grad():
            frozen = module.base_layer(*inputs)
        return frozen + factor.to(output.dtype) * (output - frozen)

    return scale


@torch.no_grad()
def row_losses(model: AdaptedModel, rows: Rows) -> list[tuple[list[int], np.ndarray]]:
    """Return the tokens of each row and the loss of each of them in nats, NaN where a token does not count."""
    tokens = model.tokens(rows)
    device = next(model.base.model.parameters()).device
    rows_losses = []
    for index in range(len(tokens)):
        batch = tokens.batch([index], device)
        labels = batch.pop("labels")
        with model.autocast():
            output: Any = model.strategy.forward(model.base.model.eval(), batch)
            losses = token_losses(output, labels)
        n = int(tokens.length[index])
        rows_losses.append((list(tokens.features[index]["input_ids"]), losses[0, :n].float().cpu().numpy()))
    return rows_losses
