"""Second moments inside of each adapter over training examples: of A x at its middle, and of the gradients at its B."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dynlora.engine.data.batches import Tokens, sorted_batches
from dynlora.engine.evaluation.inference import AdaptedModel
from dynlora.engine.model.lora_linear import LoraLinear


@dataclass
class Moments:
    """Sums over tokens inside of one module's low-rank update, (r, r) each.

    Attributes:
        inputs: Σ (A x)(A x)ᵀ.
        outputs: Σ (Bᵀ g)(Bᵀ g)ᵀ with g the gradient of the row's loss at the module's output; None where not asked for.
    """

    inputs: Tensor
    outputs: Tensor | None


def moments(model: AdaptedModel, tokens: Tokens, *, batch_size: int = 16, gradients: bool = True) -> list[Moments]:
    """Return every module's moments over rows, padding left out.

    Args:
        model: with its adapters on and without gates.
        tokens: labelled rows.
        batch_size: rows of a forward pass.
        gradients: also look at the gradients, which takes a backward pass.
    """
    sums = [Moments(_zeros(module), _zeros(module) if gradients else None) for module in model.adapters]
    model.base.model.eval()
    device = next(model.base.model.parameters()).device
    with torch.set_grad_enabled(gradients), _hooked(model.adapters.modules, sums) as read:
        for indices in sorted_batches(tokens.length, batch_size):
            _look(model, tokens, indices, device, read, gradients=gradients)
    return sums


def _look(
    model: AdaptedModel, tokens: Tokens, indices: np.ndarray, device: torch.device, read: Reading, *, gradients: bool
) -> None:
    """Take one batch in."""
    batch = tokens.batch(indices, device)
    labels, mask = batch.pop("labels"), batch.get("attention_mask")
    read.real = None if mask is None else mask.reshape(-1).bool()
    with model.autocast():
        output = model.strategy.forward(model.base.model, batch)
        if gradients:
            model.task.example_loss(output, labels).sum().backward()
            model.base.model.zero_grad(set_to_none=True)


@dataclass
class Reading:
    """What the hooks need to know of the batch that passes: which tokens, all rows in turn, are no padding."""

    real: Tensor | None = None

    def rows(self, x: Tensor) -> Tensor:
        """Return values by token, (n, d), without padding where they are by token at all."""
        flat = x.detach().reshape(-1, x.shape[-1]).float()
        return flat[self.real] if self.real is not None and len(self.real) == len(flat) else flat


@contextmanager
def _hooked(modules: Sequence[LoraLinear], sums: Sequence[Moments]) -> Iterator[Reading]:
    """Add up what passes the modules inside the block."""
    read = Reading()
    handles = [module.register_forward_hook(_adding(one, read)) for module, one in zip(modules, sums, strict=True)]
    try:
        yield read
    finally:
        for handle in handles:
            handle.remove()


def _adding(sums: Moments, read: Reading) -> Callable[[nn.Module, Any, Tensor], None]:
    """Return a forward hook that adds up a module's moments."""

    def hook(module: nn.Module, args: Any, output: Tensor) -> None:
        A, B = module.low_rank()  # pyright: ignore - an adapter
        with torch.no_grad():
            inner = (read.rows(args[0]) @ A.float().t()).double()
            sums.inputs += (inner.t() @ inner).cpu()
        if sums.outputs is not None and output.requires_grad:
            output.register_hook(lambda gradient: _add_gradient(sums, read.rows(gradient), B))

    return hook


def _add_gradient(sums: Moments, gradient: Tensor, B: Tensor) -> None:
    """Add up the gradients at a module's output as its B sees them."""
    with torch.no_grad():
        inner = (gradient @ B.float()).double()
        sums.outputs += (inner.t() @ inner).cpu()  # pyright: ignore - asked for


def _zeros(module: LoraLinear) -> Tensor:
    size = len(module.low_rank()[0])
    return torch.zeros(size, size, dtype=torch.float64)
