"""Boosted modules: the trained component is folded into the frozen weight, kept beside it, and a new one begun."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer

from dynlora.engine.edits.components import forget
from dynlora.engine.edits.values import Change
from dynlora.engine.model.adapters import Adapters
from dynlora.engine.model.lora_linear import LoraLinear
from dynlora.engine.model.modules import ModuleInfo
from dynlora.engine.randomness import stream


class BoostedLinear(LoraLinear):
    """A module whose frozen weight holds what was learnt before: W0 + scaling · Σ_j b_j a_jᵀ over its boosters j.

    The boosters are kept, so that W0 can be had back, and all of them exported as one LoRA. A weight in half precision
    is off by the rounding of one addition, however many there are: their sum is kept in float32 beside it.

    Attributes:
        boosters_A: rows of the folded boosters, (room, d_in), zero past the folded ones.
        boosters_B: their columns, (d_out, room).
        folded: how many there are, a whole number as a tensor, which checkpoints carry.
        count: the same as a plain value: reading it never waits for the device.
    """

    boosters_A: Tensor
    boosters_B: Tensor
    folded: Tensor

    def __init__(self, base_layer: nn.Module, info: ModuleInfo, *, rank: int, room: int, scaling: float) -> None:
        """Wrap `base_layer`, with room for so many boosters beside the one that is trained."""
        super().__init__(base_layer, info, rank=rank, max_rank=1, scaling=scaling)
        device = self.lora_A.device
        self.register_buffer("boosters_A", torch.zeros(room, info.d_in, device=device))
        self.register_buffer("boosters_B", torch.zeros(info.d_out, room, device=device))
        self.register_buffer("folded", torch.zeros((), dtype=torch.int64))
        self.count = 0
        self._exact: Tensor | None = None

    @torch.no_grad()
    def fold(self) -> None:
        """Add the trained component to the frozen weight and to the boosters, and leave the module without one."""
        if self.rank == 0:
            return
        place = self.count
        self.boosters_A[place], self.boosters_B[:, place] = self.lora_A[0], self.lora_B[:, 0]
        self.folded += 1
        self.count += 1
        self._add(self._booster(place))
        self.lora_A.zero_()
        self.lora_B.zero_()
        self.rank = 0

    @torch.no_grad()
    def loaded(self) -> None:
        """Fold the saved boosters into the frozen weight one by one, as training did: equal to the last bit."""
        self.count = int(self.folded)
        for place in range(self.count):
            self._add(self._booster(place))

    def rescaled(self, factor: float) -> None:
        """Multiply the boosters by the factor too, those in the frozen weight with them."""
        n = self.count
        change = (factor - 1) * self.scaling * (self.boosters_B[:, :n] @ self.boosters_A[:n])
        self.boosters_B.mul_(factor)
        self._add(change)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, ..., d_in) to (batch, ..., d_out); disabled, the boosters are taken out again."""
        if self.enabled:
            return super().forward(x)
        output = self.base_layer(x)
        return output - self._boosted(x, output)

    def added(self, x: Tensor, output: Tensor) -> Tensor:
        """Return what the boosters and the trained component add to the frozen map of x."""
        return super().added(x, output) + self._boosted(x, output)

    def _boosted(self, x: Tensor, output: Tensor) -> Tensor:
        """Return what the boosters in the frozen weight add, in the type of an output."""
        n = self.count
        A, B = (tensor.to(output.dtype) for tensor in (self.boosters_A[:n], self.boosters_B[:, :n]))
        return self.scaling * F.linear(F.linear(x, A), B)

    def low_rank(self) -> tuple[Tensor, Tensor]:
        """Return all boosters and the trained component as one A, (n, d_in), and B, (d_out, n)."""
        n = self.count
        A = torch.cat([self.boosters_A[:n], self.lora_A[: self.rank]])
        return A, torch.cat([self.boosters_B[:, :n], self.lora_B[:, : self.rank]], 1)

    def delta_weight(self) -> Tensor:
        """Return what the frozen weight lacks: the trained component alone, (d_out, d_in)."""
        return self.scaling * (self.lora_B[:, : self.rank] @ self.lora_A[: self.rank])

    def active_rank_on_device(self) -> int:
        """Return the components that reach the output: the boosters and the trained one."""
        return self.count + self.rank

    def allocated_parameters(self) -> int:
        """Return the room for the boosters and the trained component."""
        return (len(self.boosters_A) + self.max_rank) * self.info.cost

    def _booster(self, place: int) -> Tensor:
        """Return what one booster adds to the frozen weight, (d_out, d_in)."""
        return self.scaling * torch.outer(self.boosters_B[:, place], self.boosters_A[place])

    def _add(self, delta: Tensor) -> None:
        """Add an update, (d_out, d_in), to the frozen weight."""
        delta = delta if isinstance(self.base_layer, nn.Linear) else delta.t()
        weight: Tensor = self.base_layer.weight  # pyright: ignore - linear by construction
        if weight.element_size() >= delta.element_size():
            weight += delta
            return
        self._exact = delta + (weight if self._exact is None else self._exact)
        weight.copy_(self._exact)

    def copied_bytes(self) -> int:
        """Return the bytes of the copies that compute, and of the exact sum beside a narrower weight."""
        return super().copied_bytes() + (0 if self._exact is None else self._exact.nbytes)

    def likeness(self) -> Tensor | None:
        """Return the cosine between the trained booster and the one before, as matrices, (); None where one lacks."""
        if not (self.count and self.rank):
            return None
        last = self.boosters_A[self.count - 1], self.boosters_B[:, self.count - 1]
        now = self.lora_A[0].detach(), self.lora_B[:, 0].detach()
        cosines = [torch.cosine_similarity(one, other, dim=0) for one, other in zip(last, now, strict=True)]
        return cosines[0] * cosines[1]


def likeness(modules: Iterable[nn.Module]) -> Tensor | None:
    """Return the mean cosine of successive boosters over the modules at their second or later, (); None without one."""
    cosines = [module.likeness() for module in modules if isinstance(module, BoostedLinear)]
    known = [cosine for cosine in cosines if cosine is not None]
    return torch.stack(known).mean() if known else None


def booster_norm(modules: Iterable[LoraLinear]) -> Tensor:
    """Return the mean norm ‖scaling · b aᵀ‖ of the boosters that are trained, over their modules, ()."""
    trained = [module for module in modules if module.rank]
    return torch.stack([m.scaling * m.lora_A[0].norm() * m.lora_B[:, 0].norm() for m in trained]).detach().mean()


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
