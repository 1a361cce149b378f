"""Where an adapter starts: A and B set before the first step."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.optim import Optimizer

from dynlora.engine.edits.values import Change
from dynlora.engine.model.adapters import Adapters
from dynlora.engine.model.offset_linear import OffsetLinear


@dataclass(frozen=True)
class StartAt(Change):
    """Set the first components of a module: rows of A, (n, d_in), and columns of B, (d_out, n); the others stay.

    `hold` lets the frozen weight give up what the adapter adds then, so that the function stays the base's. `scaling`
    replaces the module's factor, where it is given.
    """

    module: int
    A: Tensor = field(compare=False, repr=False)
    B: Tensor | None = field(default=None, compare=False, repr=False)
    hold: bool = False
    scaling: float | None = None

    @torch.no_grad()
    def perform(self, adapters: Adapters, optimizer: Optimizer | None, step: int) -> None:
        """Copy the values in; there are no moments yet.

        Raises:
            TypeError: when a module that has no offset is asked to hold one.
        """
        module = adapters[self.module]
        module.lora_A[: len(self.A)] = self.A.to(module.lora_A)
        if self.B is not None:
            module.lora_B[:, : self.B.shape[1]] = self.B.to(module.lora_B)
        if self.scaling is not None:
            module.scaling = self.scaling
        if self.hold and not isinstance(module, OffsetLinear):
            raise TypeError(f"{module.info.name}: a {type(module).__name__} cannot hold an offset")
        if self.hold and isinstance(module, OffsetLinear):
            module.hold()
