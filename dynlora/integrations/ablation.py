"""Ablation in a loop of others: what held-out examples lose without the adapter of each module."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dynlora import tasks
from dynlora.analysis.stats import bootstrap_interval
from dynlora.integrations.observed import Observed, base_of
from dynlora.store.knockouts import KnockedOut, Knockouts

Batch = Mapping[str, Tensor]
"""Inputs of the model and `labels`, as the Trainer's collator makes them."""


def ablated(
    model: nn.Module, modules: Sequence[Observed], batches: Iterable[Batch], *, rows: int, step: int, seed: int
) -> Knockouts:
    """Return what the first held-out examples lose without each module, δ_m = L(all but m) - L(all).

    Args:
        model: with PEFT's adapters.
        modules: its adapted modules.
        batches: held-out examples; as many batches as hold `rows` are read, the last one whole.
        rows: held-out examples, about.
        step: optimizer steps behind the adapter.
        seed: of the bootstrap.
    """
    device, was_training = next(model.parameters()).device, model.training
    kept = list(_first(batches, rows, device))
    model.eval()
    try:
        loss, said = _judged(model, kept)
        effects = []
        for index, module in enumerate(modules):
            with without(module):
                effects.append(_effect(index, loss, said, *_judged(model, kept), seed))
    finally:
        model.train(was_training)
    return Knockouts(
        which="last",
        step=step,
        rows=len(loss),
        loss=float(loss.mean()),
        groups=(),
        n_modules=len(modules),
        effects=tuple(effects),
    )


@contextmanager
def without(module: Observed) -> Iterator[None]:
    """Switch one adapter off inside the block: PEFT multiplies its update by the scaling."""
    scaling: Any = module.layer.scaling
    before = scaling[module.adapter]
    try:
        scaling[module.adapter] = 0.0
        yield
    finally:
        scaling[module.adapter] = before


def _first(batches: Iterable[Batch], rows: int, device: torch.device) -> Iterator[dict[str, Tensor]]:
    """Yield batches until they hold so many examples."""
    left = rows
    for batch in batches:
        if left <= 0:
            return
        left -= len(batch["labels"])
        yield {name: value.to(device) for name, value in batch.items() if isinstance(value, Tensor)}


@torch.no_grad()
def _judged(model: nn.Module, batches: Sequence[Batch]) -> tuple[np.ndarray, np.ndarray]:
    """Return each example's loss, (n,), and prediction, (n,)."""
    base = base_of(model)
    task = tasks.of_model(base)
    losses, outputs = [], []
    for batch in batches:
        inputs = {name: value for name, value in batch.items() if name != "labels"}
        loss, output = task.judged(task.forward(base, inputs), batch["labels"])
        losses.append(loss.float().cpu().numpy())
        outputs.append(output.float().cpu().numpy())
    return np.concatenate(losses).astype(float), task.prediction(np.concatenate(outputs))


def _effect(
    index: int, loss: np.ndarray, said: np.ndarray, other: np.ndarray, other_said: np.ndarray, seed: int
) -> KnockedOut:
    """Return what one module's absence does."""
    delta = other - loss
    low, high = bootstrap_interval(delta, seed)
    changed = float((other_said != said).mean())
    return KnockedOut(
        modules=(index,), loss=float(other.mean()), delta=float(delta.mean()), low=low, high=high, changed=changed
    )
