"""Importance of every component for the loss, averaged over the steps; edits keep it beside its component."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dynlora.engine.allocation import scores
from dynlora.engine.model.adapters import Adapters

SMOOTHING = 0.85
"""Fraction of the old average of importance that is kept at each step."""

MEAN_SIZE, AGE, NOW = "worth", "age", "now"
"""Names under which the averages are tracked; checkpoints hold them, so they outlive names in the code."""


@dataclass(frozen=True)
class Importance:
    """The importance of components: the mean over steps of |s_j|, with s_j = ⟨b_j, ∂L/∂b_j⟩ of one step.

    Attributes:
        smoothing: fraction of the old average that is kept at each step.
    """

    smoothing: float = SMOOTHING

    def start(self, adapters: Adapters) -> None:
        """Begin the averages."""
        for name in (MEAN_SIZE, AGE, NOW):
            adapters.track(name)

    def observe(self, adapters: Adapters) -> None:
        """Take the gradients of this step into the averages."""
        now = scores.signed_saliency(adapters.modules, adapters.track(NOW))
        adapters.track(MEAN_SIZE).lerp_(now.abs_(), 1 - self.smoothing)
        adapters.track(AGE).add_(1)

    def of(self, adapters: Adapters) -> Tensor:
        """Return each component's importance, (n_modules, widest max_rank), zero where inactive."""
        correction = 1 - self.smoothing ** adapters.track(AGE).clamp_min(1)
        return adapters.track(MEAN_SIZE) / correction

    def per_parameter(self, adapters: Adapters) -> Tensor:
        """Return each module's importance per parameter, Σ_j I_j / (max(1, r) · (d_in + d_out)), (n_modules,)."""
        total = self.of(adapters).sum(1)
        return total / torch.tensor(
            [max(1, module.rank) * module.info.cost for module in adapters], device=total.device
        )
