"""Copying: a component takes another's slot, weights and moments, from a snapshot of an earlier step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from dynlora.engine.edits.moments import state_of
from dynlora.engine.edits.values import Change
from dynlora.engine.model.adapters import Adapters
from dynlora.strategies.beamlora.layer import BeamLinear, copy_component

SIDES = (("lora_A", 0), ("lora_B", 1))
"""The tensors of a component, and the dimension that counts components."""

MOMENTS = ("exp_avg", "exp_avg_sq")


@dataclass(frozen=True)
class TakeSnapshot(Change):
    """Keep A, B and their moments of every module as they are now, one dict a module, in the list `into`."""

    into: list[dict[str, Tensor]] = field(compare=False, repr=False)

    @torch.no_grad()
    def perform(self, adapters: Adapters, optimizer: Optimizer | None, step: int) -> None:
        """Copy the tensors; moments are named after theirs, as `lora_A.exp_avg`."""
        self.into.clear()
        for module in adapters:
            tensors: dict[str, Tensor] = {}
            for name, _ in SIDES:
                parameter = getattr(module, name)
                tensors[name] = parameter.detach().clone()
                moments = state_of(optimizer, parameter)
                tensors |= {f"{name}.{key}": moments[key].clone() for key in MOMENTS if key in moments}
            self.into.append(tensors)


@dataclass(frozen=True)
class CopyComponent(Change):
    """Put a copy of component `source` of a module into the slot of `target`, as `beam.copy_component` does.

    The slot takes the source's moments of the snapshot; those of both scores begin at zero.

    Attributes:
        module: index of the module, a `BeamLinear`.
        source, target: places of the components.
        source_factor, target_factor: their importance.
        past: of the module, as `TakeSnapshot` keeps it.
        split: the source is split in two instead of copied from the snapshot, so that the function stays.
    """

    module: int
    source: int
    target: int
    source_factor: float
    target_factor: float
    past: Mapping[str, Tensor] = field(compare=False, repr=False)
    split: bool = False

    @torch.no_grad()
    def perform(self, adapters: Adapters, optimizer: Optimizer | None, step: int) -> None:
        """Copy weights, scores and moments."""
        module = adapters[self.module]
        if not isinstance(module, BeamLinear):
            raise TypeError(f"{module.info.name}: a {type(module).__name__} has no scores")
        pair, past = (self.source, self.target), None if self.split else self.past
        copy_component(module.lora_A, module.lora_B, module.score, pair, past, module.temperature)
        for name, dim in SIDES:
            moments = state_of(optimizer, getattr(module, name))
            for key in MOMENTS:
                if key in moments and f"{name}.{key}" in self.past:
                    moment = self.past[f"{name}.{key}"].select(dim, self.source)
                    moments[key].select(dim, self.target).copy_(moment)
        for key, value in state_of(optimizer, module.score).items():
            if key in MOMENTS:
                value[list(pair)] = 0

    def described(self) -> dict[str, Any]:
        """Return the row of the decision log: the lineage of the slot."""
        return {
            "edit": "copy",
            "donor": self.module,
            "donor_component": self.source,
            "donor_score": self.source_factor,
            "receiver": self.module,
            "receiver_component": self.target,
            "receiver_score": self.target_factor,
            "count": 1,
        }
