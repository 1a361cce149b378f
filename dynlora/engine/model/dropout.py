"""Dropout at the price of what it drops: positions are drawn, not a number for every entry.

The gaps between dropped entries of an independent draw follow a geometric law, so a fraction p of all entries costs p
random numbers an entry, where torch's own draw on a processor takes one each and was a tenth of a whole step.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from dynlora.engine.randomness import stream_seed

SEEDS = 2**63 - 1
"""Seeds are drawn from 0 up to this."""


def dropped_positions(seed: int, n: int, probability: float) -> Tensor:
    """Return which of n entries are dropped, each independently, as ascending positions.

    Args:
        seed: of the draw.
        n: entries.
        probability: that an entry is dropped, between 0 and 1, both excluded.
    """
    generator = np.random.SFC64(seed)
    mean = n * probability
    draws = int(mean + 6 * math.sqrt(mean) + 16)  # enough for all but one in a billion draws
    last, parts = -1, []
    while last < n:
        gaps = generator.random_raw(-(-draws // 2)).view(np.uint32).astype(np.float32)
        gaps += 0.5
        gaps *= np.float32(2**-32)  # uniform in (0, 1]
        np.log(gaps, out=gaps)
        gaps *= np.float32(1 / math.log1p(-probability))  # the whole part of this is geometric
        positions = gaps.astype(np.int64)
        positions += 1
        positions[0] += last
        np.cumsum(positions, out=positions)
        last = int(positions[-1])
        parts.append(positions)
    drawn = parts[0] if len(parts) == 1 else np.concatenate(parts)
    return torch.from_numpy(drawn[: np.searchsorted(drawn, n)])


def zero_(tensor: Tensor, dropped: Tensor) -> Tensor:
    """Zero the dropped entries of a contiguous tensor in place: positions, or a mask that is true where dropped."""
    if dropped.dtype is torch.bool:
        return tensor.masked_fill_(dropped.view(tensor.shape), 0)
    tensor.view(-1).index_fill_(0, dropped, 0)
    return tensor


class DropoutStreams:
    """What the adapters drop as a pure function of (seed, module, step, forward), so that no stream shifts another."""

    def __init__(self, seed: int) -> None:
        """Start at step 0."""
        self.seed = seed
        self.key: tuple[int, ...] = (0,)
        self._generators: dict[torch.device, torch.Generator] = {}

    def at(self, *key: int) -> None:
        """Move to a step, forward and process: the key of the draws that follow."""
        self.key = key

    def dropped(self, name: str, like: Tensor, probability: float) -> Tensor:
        """Return what module `name` drops of a tensor: positions on a processor, elsewhere a mask shaped as `like`."""
        seed = stream_seed(self.seed, name, "dropout", *self.key)
        if like.device.type == "cpu":
            return dropped_positions(seed, like.numel(), probability)
        generator = self._generators.get(like.device)
        if generator is None:
            generator = self._generators[like.device] = torch.Generator(device=like.device)
        return torch.rand(like.shape, generator=generator.manual_seed(seed), device=like.device) < probability

    def mask(self, name: str, like: Tensor, keep: float) -> Tensor:
        """Return the same as a mask shaped as `like`: true where an entry is kept."""
        ones = torch.ones(like.shape, dtype=torch.bool, device=like.device)
        return zero_(ones, self.dropped(name, like, 1 - keep))


class _Drop(torch.autograd.Function):
    """x / keep with entries dropped; keeps the positions for the backward pass, nothing else."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, dropped: Tensor, factor: float) -> Tensor:
        """Return factor · x, zero where dropped."""
        ctx.save_for_backward(dropped)
        ctx.factor = factor
        return zero_((x * factor).contiguous(), dropped)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        """Return the gradient of x."""
        (dropped,) = ctx.saved_tensors
        return zero_((gradient * ctx.factor).contiguous(), dropped), None, None


class SparseDropout(nn.Dropout):
    """`nn.Dropout` with the same law and a cheaper draw on a processor; elsewhere, and in eval mode, the same code.

    Its seed comes from torch's global stream, as the original's numbers do: the loop seeds it for every forward, and
    gradient checkpointing sets it back before it runs a block again.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Drop entries while training."""
        if not self.training or not 0 < self.p < 1 or input.device.type != "cpu" or self.inplace:
            return F.dropout(input, self.p, self.training, self.inplace)
        seed = int(torch.randint(SEEDS, ()))
        return _Drop.apply(input, dropped_positions(seed, input.numel(), self.p), 1 / (1 - self.p))  # pyright: ignore


def use_sparse_dropout(model: nn.Module) -> None:
    """Let every `nn.Dropout` of a model draw sparsely; the modules have no weights, so what is saved stays the same."""
    for module in model.modules():
        if type(module) is nn.Dropout:
            module.__class__ = SparseDropout
