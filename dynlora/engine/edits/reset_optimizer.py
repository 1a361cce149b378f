"""Resetting the optimizer, as the published code of several methods does after a change of ranks."""

from __future__ import annotations

from dataclasses import dataclass

from torch.optim import Optimizer

from dynlora.engine.edits.moments import forget
from dynlora.engine.edits.values import Change
from dynlora.engine.model.adapters import Adapters


@dataclass(frozen=True)
class RestartMoments(Change):
    """Begin the moments and step counts of everything that is trained from zero, the head's among them."""

    def perform(self, adapters: Adapters, optimizer: Optimizer | None, step: int) -> None:
        """Forget every parameter."""
        for group in [] if optimizer is None else optimizer.param_groups:
            for parameter in group["params"]:
                forget(optimizer, parameter)
