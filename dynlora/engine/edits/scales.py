"""Edits of scales: shrunk towards zero, or set to zero once more; both happen at every step, so neither is logged."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.optim import Optimizer

from dynlora.engine.edits.values import Change
from dynlora.engine.model.adapters import Adapters


def shrunk(values: Tensor, threshold: float, dead_zone: float | None = None) -> Tensor:
    """Return sign(v) · max(|v| - threshold, 0), the proximal map of threshold · |v|, elementwise.

    Args:
        values: any shape.
        threshold: what every value loses of its size.
        dead_zone: everything below it becomes zero instead of only what the threshold reaches.
    """
    size = values.abs()
    moved = values.sign() * (size - threshold).clamp_min(0)
    return moved if dead_zone is None else torch.where(size < dead_zone, 0.0, moved)


@dataclass(frozen=True)
class ShrinkScales(Change):
    """Shrink the scale of every component of every module, as `shrunk` does, and keep it within limits.

    The moments stay: a shrinkage is no gradient. It is not logged, since it happens at every step.
    """

    threshold: float
    dead_zone: float | None = None
    limits: tuple[float, float] | None = None

    @torch.no_grad()
    def perform(self, adapters: Adapters, optimizer: Optimizer | None, step: int) -> None:
        """Shrink all scales in one pass: they are many and small."""
        scales = [module.scale for module in adapters if module.scale is not None]
        if not scales:
            return
        moved = shrunk(torch.cat(scales), self.threshold, self.dead_zone)
        if self.limits is not None:
            moved = moved.clamp(*self.limits)
        torch._foreach_copy_(scales, moved.split([len(scale) for scale in scales]))  # pyright: ignore


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
