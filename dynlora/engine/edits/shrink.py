"""Shrinking scales: every component's factor comes a little nearer to zero, and stays there once it has arrived."""

from __future__ import annotations

from dataclasses import dataclass

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
