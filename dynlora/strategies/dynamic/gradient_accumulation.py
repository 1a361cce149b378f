"""Listening: for a few steps before capacity moves, every module's sketch hears which way the loss pulls its weight."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dynlora.engine.edits import Listen
from dynlora.engine.loop.schedule import Phases
from dynlora.engine.model.adapters import Adapters
from dynlora.engine.model.gradient_sketch import Directions

LISTEN_STEPS = 8
"""Steps heard before an event: enough for a mean whose leading directions stand still, few enough to cost nothing."""


@dataclass
class Listening:
    """Says when to listen, and what was heard.

    Attributes:
        steps: optimizer steps in the running sketches.
    """

    steps: int = 0

    def observe(self, adapters: Adapters) -> None:
        """Count a step that was heard."""
        if any(module.sketch is not None for module in adapters):
            self.steps += 1

    def turn(
        self, step: int, phases: Phases, n_modules: int, *, first: bool = True, later: bool = True
    ) -> list[Listen]:
        """Return the edit that begins or ends listening after `step`, if it is time.

        Args:
            step: the step just taken; 0 before the first.
            phases: when capacity moves.
            n_modules: how many listen.
            first: whether the first event is listened for.
            later: whether the others are; then the first is too.
        """
        window = min(LISTEN_STEPS, phases.allocate_every)
        ends = phases.is_event(step) and (later or first and step == phases.first_event)
        begins = phases.is_event(step + window) and (later or first and step < phases.first_event)
        if begins or ends:
            self.steps = 0
            return [Listen(tuple(range(n_modules)) if begins else ())]
        return []

    def heard(self, adapters: Adapters) -> list[Directions]:
        """Return each module's leading directions, as many as it has room for; none where nothing was heard."""
        return [
            module.sketch.directions(module.max_rank, self.steps, adapters.over_processes)
            for module in adapters
            if module.sketch is not None
        ]

    def benefits(self, adapters: Adapters, *, lr: float, steps: int) -> np.ndarray | None:
        """Return what one more component of each module promises over `steps`, (n_modules,); None when unheard."""
        heard = self.heard(adapters)
        if len(heard) < len(adapters):
            return None
        gains = [promised(d, scaling=m.scaling, lr=lr, steps=steps) for d, m in zip(heard, adapters, strict=True)]
        return np.array([gain[0] if len(gain) else np.nan for gain in gains])


def promised(directions: Directions, *, scaling: float, lr: float, steps: int) -> np.ndarray:
    """Return what components along these directions promise to take off the loss, to first order, (n,).

    A component with a = v / √3, as long as a row of uniform LoRA, has ∂L/∂b = s σ u / √3; an optimizer that moves every
    entry of b by the rate in each of `steps` steps gains lr · steps · s σ ‖u‖₁ / √3.
    """
    size = directions.value * directions.left.abs().sum(1)
    return (lr * steps * scaling / 3**0.5 * size).double().cpu().numpy()
