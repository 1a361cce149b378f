"""Sums over the tokens up to each one, of which a gate that may not see ahead is made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class TokenSums:
    """Sums over the tokens so far: of embeddings, of their squares, (batch, seq, d), and of tokens, (batch, seq, 1)."""

    value: Tensor
    square: Tensor
    n: Tensor

    @classmethod
    def nothing(cls) -> TokenSums:
        """Return the sums over no token."""
        return cls(torch.zeros(()), torch.zeros(()), torch.zeros(()))

    def after(self, other: TokenSums) -> TokenSums:
        """Return these sums with those over the tokens before."""
        device = self.n.device
        return TokenSums(
            self.value + other.value.to(device), self.square + other.square.to(device), self.n + other.n.to(device)
        )

    def of_own_text(self, places: Tensor) -> TokenSums:
        """Return these sums without the texts before a token's own, of positions in the text, (batch, seq)."""
        start = torch.arange(places.shape[1], device=places.device) - places
        return TokenSums(*(total - _before(total, start) for total in (self.value, self.square, self.n)))

    def last(self) -> TokenSums:
        """Return the sums at the last token."""
        return TokenSums(self.value[:, -1:], self.square[:, -1:], self.n[:, -1:])


@dataclass
class WrittenSoFar:
    """Texts that are continued, with pauses in which the model may do something else.

    Attributes:
        sums: over their tokens so far; None before the first forward.
    """

    sums: TokenSums | None = None


def _before(total: Tensor, start: Tensor) -> Tensor:
    """Return the sums, (batch, seq, d), up to the token before each `start`, (batch, seq)."""
    shifted = F.pad(total, (0, 0, 1, 0))
    return shifted.gather(1, start.unsqueeze(-1).expand(-1, -1, total.shape[-1]))


def restarting_positions(places: Any) -> Tensor | None:
    """Return the positions of packed texts, (batch, seq); None where no row holds more than one text."""
    if not isinstance(places, Tensor) or places.dim() != 2 or not bool((places[:, 1:] == 0).any()):
        return None
    return places


def packed_mask(places: Tensor) -> Tensor:
    """Return which tokens of packed texts are no padding, (batch, seq): a text has two tokens or more."""
    following = torch.cat([places[:, 1:], torch.zeros_like(places[:, :1])], 1)
    return (places != 0) | (following == 1)


def exact(tensor: Tensor) -> Tensor:
    """Return numbers in double precision, where the device has it.

    The sums of a text are differences of sums over several; the deviation of its first token, a root of such a
    difference, would be rounding alone.
    """
    return tensor if tensor.device.type == "mps" else tensor.double()
