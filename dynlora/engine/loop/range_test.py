"""A learning-rate range test: the training loop takes steps whose rate grows by one factor, until training breaks."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from torch import nn

from dynlora.analysis.suggested_rate import CLEAR, RateCurve, batch_noise
from dynlora.engine.data.batches import BatchOrder
from dynlora.engine.loop.optimizer import set_peak
from dynlora.engine.loop.trainer import Trainer

LOWEST, HIGHEST = 3e-5, 1.0
"""First and last rate."""

STEPS, STEPS_OF_LARGE = 90, 45
"""Steps of a test, and of one of a large model, whose steps take long."""

LARGE = 50_000_000
"""Parameters from which on a model is large."""

WINDOW = 5
"""Steps of the means that say whether training broke for good."""

NOISE_SHARE = 0.1
"""Least fall or climb that counts beside the noise, as a part of the first mean."""


def usual_steps(model: nn.Module) -> int:
    """Return the steps of a test of a model."""
    return STEPS if sum(parameter.numel() for parameter in model.parameters()) < LARGE else STEPS_OF_LARGE


def rates_of(steps: int) -> list[float]:
    """Return the rates of a test."""
    return np.geomspace(LOWEST, HIGHEST, steps).tolist()


def range_test(trainer: Trainer, rates: Sequence[float], on_step: Callable[[int], None]) -> RateCurve:
    """Return the loss of each step; what follows a break is left out, and a loss that is not finite is the last one.

    The trainer's schedule has to be constant, and its `total` beyond the test; it trains no run afterwards.

    Args:
        trainer: at step 0.
        rates: that train.lr has at each step; 0 leaves the adapters as they are.
        on_step: told the number of steps taken.
    """
    order = BatchOrder(trainer.tokens.length, trainer.config.train.batch_size, trainer.config.seed)
    trainer.adapters.over_processes = lambda value: value
    trainer.model.train()
    losses: list[float] = []
    for rate in rates:
        set_peak(trainer.optimizer, trainer.config.train, rate)
        trainer.probe_step(order)
        losses.append(trainer.loss)
        on_step(len(losses))
        if not math.isfinite(trainer.loss) or _is_hopeless(losses):
            break
    return RateCurve(tuple(rates[: len(losses)]), tuple(losses))


def _is_hopeless(losses: Sequence[float]) -> bool:
    """Say whether training broke for good: a loss that fell is above its start again, or one that never did is far."""
    if len(losses) < 3 * WINDOW:
        return False
    means = np.convolve(losses, np.ones(WINDOW) / WINDOW, "valid")
    least = max(NOISE_SHARE * means[0], CLEAR * batch_noise(np.asarray(losses)) / math.sqrt(WINDOW))
    fell = means[0] - means.min() > least
    return bool(means[-1] > means[0] + (0.0 if fell else least))
