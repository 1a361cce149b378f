"""Gradient accumulation: before the first reallocation, every module sketches its frozen weight's gradient."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dynlora.engine.edits import SketchGradients
from dynlora.engine.loop.schedule import Phases
from dynlora.engine.model.adapters import Adapters
from dynlora.engine.model.gradient_sketch import Directions, entropy_rank

ACCUMULATED_STEPS = 8
"""Steps that are accumulated: enough for stable leading directions, few enough to be cheap."""


@dataclass
class GradientAccumulation:
    """Says when gradients are sketched, and which directions came out.

    Attributes:
        steps: optimizer steps in the running sketches.
    """

    steps: int = 0

    def observe(self, adapters: Adapters) -> None:
        """Count a step whose gradient was accumulated."""
        if any(module.sketch is not None for module in adapters):
            self.steps += 1

    def turn(self, step: int, phases: Phases, n_modules: int, *, whitened: bool = False) -> list[SketchGradients]:
        """Return the edit that begins or ends the sketch of the first reallocation after `step`, if it is time.

        Args:
            step: the step just taken; 0 before the first.
            phases: when capacity moves.
            n_modules: how many modules are sketched.
            whitened: whether `effective_ranks` will be asked for.
        """
        window = min(ACCUMULATED_STEPS, phases.allocate_every)
        ends, begins = step == phases.first_event, step + window == phases.first_event
        if not (begins or ends):
            return []
        self.steps = 0
        return [SketchGradients(tuple(range(n_modules)) if begins else (), whitened and begins)]

    def directions(self, adapters: Adapters) -> list[Directions]:
        """Return each module's leading directions, at most `max_rank`; none where no gradient was accumulated."""
        return [
            module.sketch.directions(module.max_rank, self.steps, adapters.over_processes)
            for module in adapters
            if module.sketch is not None
        ]

    def effective_ranks(self, adapters: Adapters) -> np.ndarray:
        """Return the effective rank of each module's whitened mean gradient, (n_modules,), 0 where none was sketched.

        Its scale is that of neither the loss nor the inputs: modules of any size and depth can be compared.
        """
        sketches = [module.sketch for module in adapters]
        spectra = [None if one is None else one.whitened_spectrum(adapters.over_processes) for one in sketches]
        return np.array([0.0 if spectrum is None else entropy_rank(spectrum) for spectrum in spectra])


def predicted_gain(directions: Directions, *, scaling: float, lr: float, steps: int) -> np.ndarray:
    """Return the loss reduction that components along these directions predict to first order, in nats, (n,).

    A component with a = v / √3, as long as a row of uniform LoRA, has ∂L/∂b = s σ u / √3; an optimizer that moves every
    entry of b by the learning rate in each of `steps` steps gains lr · steps · s σ ‖u‖₁ / √3.
    """
    size = directions.value * directions.left.abs().sum(1)
    return (lr * steps * scaling / 3**0.5 * size).double().cpu().numpy()
