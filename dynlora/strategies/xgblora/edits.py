"""The next booster: what was trained is folded away, and fresh components begin elsewhere with a fresh optimizer."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch.optim import Optimizer

from dynlora.engine.edits.moments import forget
from dynlora.engine.edits.values import Change
from dynlora.engine.model.adapters import Adapters
from dynlora.engine.randomness import stream
from dynlora.strategies.xgblora.layer import BoostedLinear


@dataclass(frozen=True)
class NextBooster(Change):
    """Fold every trained component into its frozen weight, and begin one on exactly these modules.

    Its row a is drawn from U(±1/√d_in), or from a normal law of deviation `gaussian`; b = 0.
    """

    modules: tuple[int, ...]
    gaussian: float | None = None

    @torch.no_grad()
    def perform(self, adapters: Adapters, optimizer: Optimizer | None, step: int) -> None:
        """Fold, and draw; the moments begin from zero, as those of a fresh parameter."""
        for index, module in enumerate(adapters):
            if not isinstance(module, BoostedLinear):
                raise TypeError(f"{module.info.name}: a {type(module).__name__} has no boosters to fold into")
            module.fold()
            for parameter in (module.lora_A, module.lora_B):
                forget(optimizer, parameter)
            if index in self.modules:
                bound, row = 1 / math.sqrt(module.info.d_in), torch.empty(module.info.d_in)
                generator = stream(adapters.seed, module.info.name, "booster", step)
                if self.gaussian is None:
                    row.uniform_(-bound, bound, generator=generator)
                else:
                    row.normal_(0, self.gaussian, generator=generator)
                module.lora_A[0] = row
                module.rank = 1

    def described(self) -> dict[str, Any]:
        """Return the row of the decision log."""
        return {"edit": "boost", "modules": list(self.modules)}
