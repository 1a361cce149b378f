"""Learning-rate backoff: the adapters' rate is halved on a loss spike, when the loss climbs away from its best."""

from __future__ import annotations

from dataclasses import dataclass

SMOOTHING = 0.9
"""Fraction of the average loss that stays at each step."""

PATIENCE = 10
"""Steps the average is given, at the start and after each halving, before it is believed."""


@dataclass
class LearningRateBackoff:
    """Watches the smoothed loss of the batches.

    The rate is halved when mean loss > best + tolerance · first, where `first` is the mean loss of the first steps, so
    that the tolerance has no unit; then the watch begins again from where the loss is.

    Attributes:
        factor: on the adapters' rate, 1 until the loss climbs.
        average: smoothed loss, not yet corrected for its start.
        seen: steps in it.
        best: least mean loss since the last halving, None before one is believed.
        first: mean loss of the first `PATIENCE` steps, None before.
    """

    factor: float = 1.0
    average: float = 0.0
    seen: int = 0
    best: float | None = None
    first: float | None = None

    def see(self, loss: float, tolerance: float) -> None:
        """Take a step's loss in, and halve the rate where it has climbed by more than `tolerance` of the first."""
        self.average = SMOOTHING * self.average + (1 - SMOOTHING) * loss
        self.seen += 1
        if self.seen < PATIENCE:
            return
        mean = self.average / (1 - SMOOTHING**self.seen)
        self.first = mean if self.first is None else self.first
        self.best = mean if self.best is None else min(self.best, mean)
        if mean > self.best + tolerance * self.first:
            self.factor /= 2
            self.average, self.seen, self.best = 0.0, 0, None
