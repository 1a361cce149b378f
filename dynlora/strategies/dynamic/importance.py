"""Importance of every component for the loss, averaged over the steps; edits keep it beside its component."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dynlora.engine.allocation import scores
from dynlora.engine.model.adapters import Adapters

SCORES = ("saliency", "signed", "uncertainty", "magnitude")
"""Ways to measure importance."""

MEAN_SIZE, SPREAD, SIGNED_MEAN, AGE, NOW = "worth", "spread", "pull", "age", "now"
"""Names under which the averages are tracked; checkpoints hold them, so they outlive names in the code."""


@dataclass(frozen=True)
class Importance:
    """How the importance of components is measured.

    With s_j = ⟨b_j, ∂L/∂b_j⟩ of one step and the mean over the steps, of which `smoothing` stays at each:

    - saliency: mean |s_j|;
    - signed: |mean s_j|, what is left of the saliency when the noise of the batches has cancelled out;
    - uncertainty: mean |s_j| × mean | |s_j| - mean |s_j| |, AdaLoRA's product;
    - magnitude: ‖b_j‖ · ‖a_j‖, without gradients.

    Attributes:
        score: which of them.
        smoothing: fraction of the old average that is kept at each step.
    """

    score: str
    smoothing: float

    def start(self, adapters: Adapters) -> None:
        """Begin the averages."""
        for name in (MEAN_SIZE, SPREAD, SIGNED_MEAN, AGE, NOW):
            adapters.track(name)

    def observe(self, adapters: Adapters) -> None:
        """Take the gradients of this step into the averages."""
        now = scores.signed_saliency(adapters.modules, adapters.track(NOW))
        if self.score == "signed":
            adapters.track(SIGNED_MEAN).lerp_(now, 1 - self.smoothing)
        mean = adapters.track(MEAN_SIZE).lerp_(now.abs_(), 1 - self.smoothing)
        if self.score == "uncertainty":
            adapters.track(SPREAD).lerp_((now - mean).abs_(), 1 - self.smoothing)
        adapters.track(AGE).add_(1)

    def of(self, adapters: Adapters) -> Tensor:
        """Return each component's importance, (n_modules, widest max_rank), zero where inactive."""
        mean = adapters.track(MEAN_SIZE)
        if self.score == "magnitude":
            return scores.component_magnitude(adapters.modules, torch.zeros_like(mean))
        correction = 1 - self.smoothing ** adapters.track(AGE).clamp_min(1)
        if self.score == "uncertainty":
            return mean * adapters.track(SPREAD) / correction**2
        return (adapters.track(SIGNED_MEAN).abs() if self.score == "signed" else mean) / correction

    def per_parameter(self, adapters: Adapters) -> Tensor:
        """Return each module's importance per parameter, Σ_j I_j / (max(1, r) · (d_in + d_out)), (n_modules,)."""
        total = self.of(adapters).sum(1)
        return total / torch.tensor(
            [max(1, module.rank) * module.info.cost for module in adapters], device=total.device
        )
