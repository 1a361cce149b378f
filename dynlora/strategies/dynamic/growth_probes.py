"""Probe rows: would a module benefit from another component? Asked without forming the gradient of a full weight.

A live row with b = 0 leaves the function as it is; ∂L/∂b of it is an unbiased look at the gradient of the update. Its
mean over a few steps counts, not the mean of its size, which noise dominates. At most a sixteenth of the modules carry
a probe at any time.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from dynlora.engine.allocation import scores
from dynlora.engine.edits import SetProbe
from dynlora.engine.model.adapters import Adapters

TURNS = 16
"""In how many turns all modules are probed."""


@dataclass
class ProbeRota:
    """Sends probes round the modules and remembers what they saw.

    Attributes:
        total: sum of ∂L/∂b of the live probes, (d_out,), by module.
        steps: steps in each sum.
        benefit: what one more component promises, in units of the loss, by module.
    """

    total: dict[int, Tensor] = field(default_factory=dict)
    steps: dict[int, int] = field(default_factory=dict)
    benefit: dict[int, float] = field(default_factory=dict)

    def observe(self, adapters: Adapters) -> None:
        """Add the gradients of live probes."""
        for m, module in enumerate(adapters):
            gradient = scores.probe_gradient(module)
            if gradient is not None:
                self.total[m] = self.total[m] + gradient if m in self.total else gradient.clone()
                self.steps[m] = self.steps.get(m, 0) + 1

    def rotate(self, adapters: Adapters, step: int, *, every: int, lr: float) -> list[SetProbe]:
        """Return the edit that moves the probes on when their time is over, and read what they saw.

        Benefit is the first-order gain of an optimizer that moves each entry of b by the rate in each of the next
        `every` steps: lr · every · ‖mean ∂L/∂b‖₁.
        """
        turns = min(TURNS, len(adapters))
        dwell = max(1, every // turns)
        if step % dwell:
            return []
        for m in list(self.total):
            mean = self.total.pop(m) / self.steps.pop(m)
            self.benefit[m] = lr * every * float(mean.abs().sum())
        return [SetProbe(tuple(range((step // dwell) % turns, len(adapters), turns)))]

    def benefits(self, n_modules: int) -> np.ndarray:
        """Return each module's benefit, NaN where none was seen yet, (n_modules,)."""
        return np.array([self.benefit.get(m, np.nan) for m in range(n_modules)])
