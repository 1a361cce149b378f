"""Held-back examples: the model and examples that are not trained on, for methods that try something of their own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from dynlora.engine.data.batches import Tokens
from dynlora.engine.randomness import stream_seed
from dynlora.tasks import Task

Batch = Mapping[str, Tensor]


def set_apart(tokens: Tokens, share: float, seed: int) -> tuple[Tokens, Tokens]:
    """Return rows without a drawn fraction of them, and that fraction: what is trained on, and what is kept from it.

    At least one row is set apart where the fraction is above zero, and one is always left.
    """
    if share <= 0:
        return tokens, tokens.take(np.arange(0))
    order = np.random.default_rng(stream_seed(seed, "reserve")).permutation(len(tokens))
    size = min(max(1, round(share * len(tokens))), len(tokens) - 1)
    return tokens.take(np.sort(order[size:])), tokens.take(np.sort(order[:size]))


@dataclass(frozen=True)
class HeldBack:
    """The model and the examples that a method may try something on.

    Attributes:
        model: the adapted model.
        forward: the method's forward.
        reserve: the examples kept from training by `Strategy.reserved_share`; empty without one.
        batch_size: rows a batch.
        autocast: makes the precision's context.
        task: what is learned: its loss, its predictions.
    """

    model: nn.Module
    forward: Callable[[nn.Module, Batch], Tensor]
    reserve: Tokens
    batch_size: int
    autocast: Callable[[], Any]
    task: Task

    def batch(self, number: int) -> dict[str, Tensor]:
        """Return batch `number` of the reserve, which is gone through again and again in its own order."""
        start = number * self.batch_size
        rows = np.arange(start, start + min(self.batch_size, len(self.reserve))) % len(self.reserve)
        return self.reserve.batch(rows, next(self.model.parameters()).device)

    def batch_loss(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Return the mean loss of a batch with its labels, part of the graph; the model stays in its mode."""
        inputs = {name: tensor for name, tensor in batch.items() if name != "labels"}
        with self.autocast():
            return self.task.batch_loss(self.forward(self.model, inputs), batch["labels"])

    def gradients(self, batch: Mapping[str, Tensor], tensors: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Return the loss of a batch in eval mode and its gradient for each of `tensors`; nothing is left on them.

        Every process computes the whole batch: nothing is exchanged.
        """
        alone = self.model.module if isinstance(self.model, DistributedDataParallel) else self.model
        with torch.enable_grad(), self.evaluating():
            loss = replace(self, model=alone).batch_loss(batch)
            of_tensors = torch.autograd.grad(loss, tensors, allow_unused=True, materialize_grads=True)
        return loss.detach(), list(of_tensors)

    @torch.no_grad()
    def reserve_loss(self, batches: int | None = None) -> float:
        """Return the mean loss over the reserve's rows, or over its first so many batches, in eval mode."""
        device = next(self.model.parameters()).device
        count = len(self.reserve) if batches is None else min(len(self.reserve), batches * self.batch_size)
        parts = [np.arange(start, min(start + self.batch_size, count)) for start in range(0, count, self.batch_size)]
        with self.evaluating():
            sums = [self.batch_loss(self.reserve.batch(rows, device)) * len(rows) for rows in parts]
        return float(torch.stack(sums).sum() / count)

    @contextmanager
    def evaluating(self) -> Any:
        """Put the model in eval mode inside the block."""
        training = self.model.training
        self.model.eval()
        try:
            yield
        finally:
            self.model.train(training)
