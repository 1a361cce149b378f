"""Weights of whole modules: set at every step while they are sought, and taken into B once that is over."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.optim import Optimizer

from dynlora.engine.edits.components import state_of
from dynlora.engine.edits.values import Change
from dynlora.engine.model.adapters import Adapters


@dataclass(frozen=True)
class Weigh(Change):
    """Set the scale of every module's components to its entry of `weights`, (n_modules,), without asking the device."""

    weights: Tensor = field(compare=False, repr=False)

    @torch.no_grad()
    def perform(self, adapters: Adapters, optimizer: Optimizer | None, step: int) -> None:
        """Write the scales of the active components; a module without a scale is left alone."""
        scaled = [
            (module.scale[: module.rank], index) for index, module in enumerate(adapters) if module.scale is not None
        ]
        values = [self.weights[index].expand(len(scale)) for scale, index in scaled]
        torch._foreach_copy_([scale for scale, _ in scaled], values)  # pyright: ignore[reportPrivateImportUsage]


@dataclass(frozen=True)
class TakeIn(Change):
    """Multiply every module's scale into its B, and set it to one: the function stays.

    The gradient of B is divided by the scale then, and so are its moments: the first once, the second twice.
    """

    @torch.no_grad()
    def perform(self, adapters: Adapters, optimizer: Optimizer | None, step: int) -> None:
        """Fold the scales in; moments of a component whose scale is zero are zero afterwards."""
        for module in adapters:
            if module.scale is None:
                continue
            scale = module.scale[: module.rank].clone()
            inverse = torch.where(scale != 0, 1 / scale, 0.0)
            module.lora_B[:, : module.rank] *= scale
            moments = state_of(optimizer, module.lora_B)
            for name, factor in (("exp_avg", inverse), ("exp_avg_sq", inverse.square())):
                if name in moments:
                    moments[name][:, : module.rank] *= factor
            module.scale.fill_(1.0)


@dataclass(frozen=True)
class Look(Change):
    """Call `look` once the edits before this one are done, so that a method can measure what they did."""

    look: Callable[[], None] = field(compare=False, repr=False)

    def perform(self, adapters: Adapters, optimizer: Optimizer | None, step: int) -> None:
        """Look; nothing is changed."""
        self.look()
