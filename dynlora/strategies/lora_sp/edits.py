"""What a partly frozen adapter does after the optimizer: entries are written back, or others are chosen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from dynlora.engine.edits.moments import state_of
from dynlora.engine.edits.values import Change
from dynlora.engine.model.adapters import Adapters
from dynlora.strategies.lora_sp.layer import PartialLinear


@dataclass(frozen=True)
class ReadParts(Change):
    """Let the optimizer begin from what A and B are now, after something else has set them."""

    def perform(self, adapters: Adapters, optimizer: Optimizer | None, step: int) -> None:
        """Read."""
        for module in _partial(adapters):
            module.read()


@dataclass(frozen=True)
class WriteBack(Change):
    """Put the trained entries of every module, as the optimizer left them, into A and B."""

    def perform(self, adapters: Adapters, optimizer: Optimizer | None, step: int) -> None:
        """Write back."""
        for module in _partial(adapters):
            module.write_back()


@dataclass(frozen=True)
class ChooseAnew(Change):
    """Draw other entries to train. One that stays keeps its moments.

    One that comes begins with a first moment of zero and the mean second moment of those that were trained: with zero
    its first updates would be three to six times the rate, since Adam counts the steps of the whole tensor.
    """

    @torch.no_grad()
    def perform(self, adapters: Adapters, optimizer: Optimizer | None, step: int) -> None:
        """Draw, and carry the moments over."""
        for module in _partial(adapters):
            before = {side: index.clone() for side, _, _, index in module.parts()}
            module.choose(adapters.seed, step)
            for side, matrix, part, index in module.parts():
                for name, moment in state_of(optimizer, part).items():
                    if isinstance(moment, Tensor) and moment.shape == part.shape:
                        newcomers = moment.mean() if name == "exp_avg_sq" else moment.new_zeros(())
                        spread = newcomers.expand(matrix.shape).clone()
                        spread[before[side]] = moment
                        moment.copy_(spread[index])

    def described(self) -> dict[str, Any]:
        """Return the row of the decision log."""
        return {"edit": "train_other_entries"}


def _partial(adapters: Adapters) -> list[PartialLinear]:
    """Return the partly frozen modules."""
    return [module for module in adapters if isinstance(module, PartialLinear)]
