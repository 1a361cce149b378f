"""Partly frozen adapters: only some of A and B is trained, and the optimizer holds nothing of the rest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from dynlora.engine.edits.components import state_of
from dynlora.engine.edits.values import Change
from dynlora.engine.model.adapters import Adapters
from dynlora.engine.model.lora_linear import LoraLinear
from dynlora.engine.model.modules import ModuleInfo
from dynlora.engine.randomness import stream

MASKS = ("entry", "row", "matrix")
"""What is frozen: single entries; rows of A (components) and of B (outputs); or A whole."""

SIDES = ("A", "B")


class PartialLinear(LoraLinear):
    """A module of whose A and B only a part is trained.

    A matrix that is trained whole is the optimizer's own parameter, one that is frozen whole gets no gradient. Of one
    that is trained in part the optimizer sees the trained entries alone, as a parameter of their own: their gradient is
    read into it before a step, and they are written back after it, so that what is frozen has no moments, no weight
    decay and no part in the gradient's norm, and keeps its bits.

    Attributes:
        part_A, part_B: the trained entries, (n, width), width being 1 where they are drawn one by one and a row's
            where rows are; absent where the matrix is trained or frozen whole.
        index_A, index_B: places of the entries in A and B read row by row, or of the rows, (n,), rising; as absent.
    """

    def __init__(
        self, base_layer: nn.Module, info: ModuleInfo, *, rank: int, scaling: float, mask: str, share: float
    ) -> None:
        """Wrap `base_layer`, with room for as much as `mask` and `share` let train; nothing is chosen yet."""
        super().__init__(base_layer, info, rank=rank, max_rank=rank, scaling=scaling)
        self.widths = {"A": info.d_in, "B": rank} if mask == "row" else {"A": 1, "B": 1}
        for side, count in trained_counts(info, rank, mask, share).items():
            whole = self.whole(side)
            if count == 0:
                whole.requires_grad_(False)
            elif count * self.widths[side] < whole.numel():
                room = torch.zeros(count, self.widths[side], device=whole.device)
                self.register_parameter(f"part_{side}", nn.Parameter(room, requires_grad=False))  # gradients are ours
                self.register_buffer(f"index_{side}", torch.zeros(count, dtype=torch.int32, device=whole.device))

    def whole(self, side: str) -> nn.Parameter:
        """Return A or B."""
        return self.get_parameter(f"lora_{side}")

    def parts(self) -> list[tuple[str, Tensor, Tensor, Tensor]]:
        """Return side, matrix, trained entries and their places of each matrix that is trained in part.

        The matrix is a view, (numbers / width, width): its rows are what is drawn.
        """
        return [
            (side, self.whole(side).detach().view(-1, self.widths[side]), part, self.get_buffer(f"index_{side}"))
            for side in SIDES
            if (part := getattr(self, f"part_{side}", None)) is not None
        ]

    def adapter_parameters(self) -> dict[str, nn.Parameter]:
        """Return what the optimizer trains, by the names of what it is a part of."""
        parameters = {f"lora_{side}": self.whole(side) for side in SIDES if self.whole(side).requires_grad}
        return parameters | {f"lora_{side}": self.get_parameter(f"part_{side}") for side, *_ in self.parts()}

    @torch.no_grad()
    def choose(self, seed: int, draw: int) -> None:
        """Draw what is trained; draw 0 is that of the start."""
        for side, matrix, _, index in self.parts():
            generator = stream(seed, self.info.name, f"trained {side}", draw)
            index.copy_(torch.randperm(len(matrix), generator=generator)[: len(index)].sort().values)
        self.read()

    @torch.no_grad()
    def read(self) -> None:
        """Let the optimizer begin from what A and B are now."""
        for _, matrix, part, index in self.parts():
            part.copy_(matrix[index])

    @torch.no_grad()
    def gather(self) -> None:
        """Give the trained entries their gradient."""
        for side, _, part, index in self.parts():
            gradient = self.whole(side).grad
            part.grad = None if gradient is None else gradient.view(-1, self.widths[side])[index]

    @torch.no_grad()
    def write_back(self) -> None:
        """Put the trained entries, as the optimizer left them, into A and B."""
        for _, matrix, part, index in self.parts():
            matrix[index] = part

    def trained_shares(self) -> dict[str, float]:
        """Return the fraction of A and of B that is trained, by side."""
        shares = {side: float(self.whole(side).requires_grad) for side in SIDES}
        return shares | {side: len(index) / len(matrix) for side, matrix, _, index in self.parts()}

    def trained_of_components(self) -> Tensor:
        """Return the fraction of each component's numbers, a row of A and a column of B, that is trained, (rank,)."""
        flags = self.trained()
        return (flags["A"].sum(1) + flags["B"].sum(0)) / self.info.cost

    def trained(self) -> dict[str, Tensor]:
        """Return which entries of A and B are trained, by side, each as large as the matrix, 0 or 1."""
        flags = {side: torch.full_like(self.whole(side), float(self.whole(side).requires_grad)) for side in SIDES}
        for side, matrix, _, index in self.parts():
            flags[side] = torch.zeros_like(matrix).index_fill_(0, index.long(), 1.0).view_as(self.whole(side))
        return flags


def trained_counts(info: ModuleInfo, rank: int, mask: str, share: float) -> dict[str, int]:
    """Return how much of A and of B is trained: entries, or rows where rows are drawn."""
    if mask == "matrix":
        return {"A": 0, "B": info.d_out * rank}
    if mask == "row":
        return {"A": max(1, round(share * rank)), "B": max(1, round(share * info.d_out))}
    return {"A": round(share * rank * info.d_in), "B": round(share * info.d_out * rank)}


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
