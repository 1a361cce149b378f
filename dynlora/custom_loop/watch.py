"""Notices an optimizer that steps while its strategy is never asked: it would train plain LoRA without a word."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

from torch.optim import Optimizer

PATIENCE = 2
"""Steps of the optimizer without one of the strategy's, from which it is said."""


class Watch:
    """Counts the optimizer's steps beside those of the strategy.

    Attributes:
        is_driven: whether a callback takes the strategy's steps.
    """

    def __init__(self, optimizer: Optimizer, steps: Callable[[], int]) -> None:
        """Listen to `optimizer`; `steps` tells how many the strategy took."""
        self.is_driven = False
        self._steps, self._taken, self._said = steps, 0, False
        optimizer.register_step_post_hook(self._count)

    def _count(self, *_: Any) -> None:
        self._taken += 1
        if self._taken >= PATIENCE and not self._steps() and not self._said:
            self._said = True
            how = (
                "the Trainer was not given its callback: callbacks=[attached.callback()]"
                if not self.is_driven
                else "the callback was made and never called: give it to the Trainer"
            )
            warnings.warn(
                "attached.optimizer steps, and the strategy does not: no rank moves. Call attached.step() in the place "
                f"of optimizer.step(), or, with transformers' Trainer, {how}",
                stacklevel=2,
            )
