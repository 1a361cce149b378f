"""Masking scales: components that were set to zero are set to zero once more, whatever the optimizer made of them."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.optim import Optimizer

from dynlora.engine.edits.values import Change
from dynlora.engine.model.adapters import Adapters


@dataclass(frozen=True)
class MaskScales(Change):
    """Multiply the scales of all active components by `keep`, 0 or 1 each, one module's after the other's.

    It decides nothing and happens at every step, so it is not logged, and nothing waits for the device.
    """

    keep: Tensor = field(compare=False, repr=False)

    @torch.no_grad()
    def perform(self, adapters: Adapters, optimizer: Optimizer | None, step: int) -> None:
        """Mask all scales in one pass; a module without a scale is left alone."""
        parts = self.keep.split([module.rank for module in adapters])
        held = [(m.scale[: m.rank], part) for m, part in zip(adapters, parts, strict=True) if m.scale is not None]
        torch._foreach_mul_([scale for scale, _ in held], [part for _, part in held])  # pyright: ignore
