"""What a partly frozen adapter does after the optimizer: entries are written back, or others are chosen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from dynlora.engine.adapters import Adapters
from dynlora.engine.edits.moments import state_of
from dynlora.engine.edits.values import Change
from dynlora.engine.partial import PartialLinear


@dataclass(frozen=True)
class WriteBack(Change):
    """Put the trained entries of every module, as the optimizer left them, into A and B."""

    def perform(self, adapters: Adapters, optimizer: Optimizer | None, step: int) -> None:
        """Write back."""
        for module in _partial(adapters):
            module.write_back()


@dataclass(frozen=True)
class ChooseAnew(Change):
    """Draw other entries to train; one that stays keeps its moments, one that comes begins with none."""

    mask: str

    @torch.no_grad()
    def perform(self, adapters: Adapters, optimizer: Optimizer | None, step: int) -> None:
        """Draw, and carry the moments over."""
        for module in _partial(adapters):
            before = {side: module.get_buffer(f"index_{side}").clone() for side in "AB"}
            module.choose(self.mask, adapters.seed, step)
            for side, whole in (("A", module.lora_A), ("B", module.lora_B)):
                index, part = module.get_buffer(f"index_{side}"), module.get_parameter(f"part_{side}")
                for moment in state_of(optimizer, part).values():
                    if isinstance(moment, Tensor) and moment.shape == part.shape:
                        spread = moment.new_zeros(whole.numel())
                        spread[before[side]] = moment
                        moment.copy_(spread[index])

    def described(self) -> dict[str, Any]:
        """Return the row of the decision log."""
        return {"edit": "train_other_entries", "mask": self.mask}


def _partial(adapters: Adapters) -> list[PartialLinear]:
    """Return the partly frozen modules."""
    return [module for module in adapters if isinstance(module, PartialLinear)]
