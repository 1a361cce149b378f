"""Tying: several modules come to share one tensor, its value the mean of theirs, its moments those of their sum."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.optim import Optimizer

from dynlora.engine.edits.moments import merge_moments, weighted_mean
from dynlora.engine.edits.values import Change
from dynlora.engine.model.adapters import Adapters


@dataclass(frozen=True)
class Tie(Change):
    """Let `modules` share one lora_A or lora_B from now on: the mean of theirs, each weighted by who uses it.

    The first module's tensor survives; the others leave the optimizer. From now on its gradient is the sum of what all
    of its users say, and so its moments are made those of a sum.

    Attributes:
        modules: one of each group that comes to share.
        name: of the tensor.
        distance: between what merges, for the log.
        among: the modules it was chosen among, for the log; empty where another row of the event tells.
        distances: between those, one row each, before the event.
    """

    modules: tuple[int, ...]
    name: Literal["lora_A", "lora_B"] = "lora_B"
    distance: float = float("nan")
    among: tuple[int, ...] = ()
    distances: tuple[tuple[float, ...], ...] = ()

    @torch.no_grad()
    def perform(self, adapters: Adapters, optimizer: Optimizer | None, step: int) -> None:
        """Tie, with all modules that share a tensor with one of these already."""
        wanted = {id(getattr(adapters[index], self.name)) for index in self.modules}
        users = [module for module in adapters if id(getattr(module, self.name)) in wanted]
        tensors: dict[int, Tensor] = {}
        weights: dict[int, int] = {}
        for module in users:
            tensor = getattr(module, self.name)
            tensors[id(tensor)] = tensor
            weights[id(tensor)] = weights.get(id(tensor), 0) + 1
        share = [weights[key] / len(users) for key in tensors]
        survivor = next(iter(tensors.values()))
        merge_moments(optimizer, list(tensors.values()))
        survivor.copy_(weighted_mean(list(tensors.values()), share))
        for module in users:
            setattr(module, self.name, survivor)
        survivor.grad = None  # the next backward adds up what all users say

    def described(self) -> dict[str, Any]:
        """Return the row of the decision log."""
        row = {"edit": "tie", "modules": list(self.modules), "tensor": self.name, "distance": self.distance}
        chosen_from = {"among": list(self.among), "distances": [list(line) for line in self.distances]}
        return row | chosen_from if self.among else row
