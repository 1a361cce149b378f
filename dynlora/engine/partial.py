"""Partly frozen adapters: only some entries of A and B are trained, and the optimizer holds nothing of the others."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dynlora.engine.lora_linear import LoraLinear
from dynlora.engine.modules import ModuleInfo
from dynlora.engine.randomness import stream

MASKS = ("entry", "row", "matrix")
"""What is frozen: single entries; rows of A (components) and of B (outputs); or A whole."""


class PartialLinear(LoraLinear):
    """A module whose optimizer sees the trained entries of A and B alone, as one flat parameter each.

    The gradient of A and B is read into them before a step, and they are written back after it, so that what is frozen
    has no moments, no weight decay and no part in the gradient's norm, and keeps its bits.

    Attributes:
        part_A, part_B: the trained entries, (n,); the optimizer's parameters.
        index_A, index_B: their places in A and B read row by row, (n,), rising.
    """

    index_A: Tensor
    index_B: Tensor

    def __init__(
        self, base_layer: nn.Module, info: ModuleInfo, *, rank: int, scaling: float, mask: str, share: float
    ) -> None:
        """Wrap `base_layer`, with room for so many trained entries as `mask` and `share` come to; none chosen yet."""
        super().__init__(base_layer, info, rank=rank, max_rank=rank, scaling=scaling)
        device = self.lora_A.device
        for side, size in trained_sizes(info, rank, mask, share).items():
            part = nn.Parameter(torch.zeros(size, device=device), requires_grad=False)  # gradients are put there by us
            self.register_parameter(f"part_{side}", part)
            self.register_buffer(f"index_{side}", torch.zeros(size, dtype=torch.long, device=device))

    def adapter_parameters(self) -> dict[str, nn.Parameter]:
        """Return what the optimizer trains, by the names of what it is a part of."""
        found = {f"lora_{side}": self.get_parameter(f"part_{side}") for side in "AB"}
        return {name: part for name, part in found.items() if part.numel()}

    @torch.no_grad()
    def choose(self, mask: str, seed: int, draw: int) -> None:
        """Draw which entries are trained; draw 0 is that of the start."""
        for side, whole in (("A", self.lora_A), ("B", self.lora_B)):
            index, part = self.get_buffer(f"index_{side}"), self.get_parameter(f"part_{side}")
            generator = stream(seed, self.info.name, f"trained {side}", draw)
            index.copy_(_places(whole, mask, index.numel(), generator))
            part.copy_(whole.view(-1)[index])

    @torch.no_grad()
    def gather(self) -> None:
        """Give the trained entries their gradient."""
        for side, whole in (("A", self.lora_A), ("B", self.lora_B)):
            part = self.get_parameter(f"part_{side}")
            part.grad = None if whole.grad is None else whole.grad.view(-1)[self.get_buffer(f"index_{side}")]

    @torch.no_grad()
    def write_back(self) -> None:
        """Put the trained entries, as the optimizer left them, into A and B."""
        for side, whole in (("A", self.lora_A), ("B", self.lora_B)):
            whole.view(-1)[self.get_buffer(f"index_{side}")] = self.get_parameter(f"part_{side}")

    def trained_share(self) -> tuple[float, float]:
        """Return the share of A and of B that is trained."""
        return self.index_A.numel() / self.lora_A.numel(), self.index_B.numel() / self.lora_B.numel()


def trained_sizes(info: ModuleInfo, rank: int, mask: str, share: float) -> dict[str, int]:
    """Return how many entries of A and of B are trained."""
    if mask == "matrix":
        return {"A": 0, "B": info.d_out * rank}
    if mask == "row":
        return {"A": max(1, round(share * rank)) * info.d_in, "B": max(1, round(share * info.d_out)) * rank}
    return {"A": round(share * rank * info.d_in), "B": round(share * info.d_out * rank)}


def _places(whole: Tensor, mask: str, size: int, generator: torch.Generator) -> Tensor:
    """Return the places of the trained entries of one matrix read row by row, rising, (size,)."""
    rows, columns = whole.shape
    if mask == "row":
        chosen = torch.randperm(rows, generator=generator)[: size // columns].sort().values
        return (chosen.unsqueeze(1) * columns + torch.arange(columns)).view(-1)
    return torch.randperm(whole.numel(), generator=generator)[:size].sort().values
