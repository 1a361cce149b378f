"""Worth: what every component is to the loss, smoothed over the steps; edits keep it beside its component."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dynlora.engine.allocation import scores
from dynlora.engine.model.adapters import Adapters

SCORES = ("saliency", "signal", "uncertain", "magnitude")


@dataclass(frozen=True)
class Worth:
    """How components are valued.

    With s_j = ⟨b_j, ∂L/∂b_j⟩ of one step and the mean over the steps, of which `smoothing` stays at each:

    - saliency: mean |s_j|;
    - signal: |mean s_j|, what of the pull stays when the noise of the batches has cancelled out;
    - uncertain: mean |s_j| × mean | |s_j| - mean |s_j| |, AdaLoRA's product;
    - magnitude: ‖b_j‖ · ‖a_j‖, without gradients.

    Attributes:
        score: which of them.
        smoothing: share of the old average that stays at each step.
    """

    score: str
    smoothing: float

    def start(self, adapters: Adapters) -> None:
        """Begin the averages."""
        for name in ("worth", "spread", "pull", "age", "now"):
            adapters.track(name)

    def observe(self, adapters: Adapters) -> None:
        """Take every component's worth from the gradients of this step into the averages."""
        now = scores.component_pull(adapters.modules, adapters.track("now"))
        if self.score == "signal":
            adapters.track("pull").lerp_(now, 1 - self.smoothing)
        worth = adapters.track("worth").lerp_(now.abs_(), 1 - self.smoothing)
        if self.score == "uncertain":
            adapters.track("spread").lerp_((now - worth).abs_(), 1 - self.smoothing)
        adapters.track("age").add_(1)

    def of(self, adapters: Adapters) -> Tensor:
        """Return what each component is worth, (n_modules, widest max_rank), zero where inactive."""
        if self.score == "magnitude":
            return scores.component_magnitude(adapters.modules, torch.zeros_like(adapters.track("worth")))
        worth, spread, pull, age = (adapters.track(name) for name in ("worth", "spread", "pull", "age"))
        correction = 1 - self.smoothing ** age.clamp_min(1)
        if self.score == "uncertain":
            return worth * spread / correction**2
        return (pull.abs() if self.score == "signal" else worth) / correction

    def per_parameter(self, adapters: Adapters) -> Tensor:
        """Return each module's worth per parameter, Σ_j I_j / (max(1, r) · (d_in + d_out)), (n_modules,)."""
        total = self.of(adapters).sum(1)
        return total / torch.tensor(
            [max(1, module.rank) * module.info.cost for module in adapters], device=total.device
        )
