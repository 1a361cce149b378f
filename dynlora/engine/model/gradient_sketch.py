"""Gradient sketches: the leading directions of a frozen weight's gradient, without ever forming that gradient.

A module maps x to y = W x; its gradient G = ∂L/∂W = Σ g xᵀ over all tokens is as large as W. Two thin products are
kept instead, Y = G Ω and Z = Gᵀ Ψ with fixed random Ω and Ψ, summed over a few steps. The leading singular triplets of
the mean gradient come out of them in one pass (Tropp et al. 2017, arXiv 1609.00048): with Q an orthonormal basis of Y,
G ≈ Q (Ψᵀ Q)⁺ Zᵀ. A sketch costs a forward and backward pass what an adapter of its width would, while it lasts.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from dynlora.engine.randomness import stream


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


LEAST_WIDTH = 8
"""Columns of Ω at least: with fewer even the first triplets are noisy."""


@dataclass(frozen=True)
class Directions:
    """The leading singular triplets of a summed gradient, largest first.

    Attributes:
        left: u, (n, d_out), unit length.
        value: σ, (n,), in loss per unit of the weight.
        right: v, (n, d_in), unit length.
    """

    left: Tensor
    value: Tensor
    right: Tensor


@dataclass
class GradientSketch:
    """The running sums of one module, in fp32; the products that are added have the precision of the gradient.

    Attributes:
        forward_sum: Y = G Ω, (d_out, width).
        backward_sum: Z = Gᵀ Ψ, (d_in, 2 · width + 1): where the published error bound is good.
        seed, key: of the streams Ω and Ψ are drawn from.
    """

    forward_sum: Tensor
    backward_sum: Tensor
    seed: int
    key: str

    @classmethod
    def empty(
        cls,
        d_in: int,
        d_out: int,
        *,
        seed: int,
        key: str,
        device: torch.device,
        triplets: int = 1,
    ) -> GradientSketch:
        """Return a sketch of nothing yet.

        Args:
            d_in: input features of the module.
            d_out: output features of the module.
            seed: of the run.
            key: names module and window, so that each draws its own Ω and Ψ.
            device: of the sums.
            triplets: how many will be asked for, at most; sets the width.
        """
        width = max(LEAST_WIDTH, triplets)
        sums = torch.zeros(d_out, width, device=device), torch.zeros(d_in, 2 * width + 1, device=device)
        return cls(*sums, seed, key)

    def record(self, x: Tensor, output: Tensor) -> None:
        """Add this forward pass once its backward reaches `output`.

        Args:
            x: the module's input, (batch, ..., d_in).
            output: the module's output, (batch, ..., d_out), part of the graph.
        """
        if output.requires_grad:
            x = x.detach()
            output.register_hook(lambda gradient: self.add(x, gradient))

    @torch.no_grad()
    def add(self, x: Tensor, gradient: Tensor) -> None:
        """Add Σ g xᵀ of one backward pass, x (batch, ..., d_in) and g = ∂L/∂y (batch, ..., d_out)."""
        with torch.autocast(x.device.type, enabled=False):
            pulls = gradient.reshape(-1, gradient.shape[-1])
            rows = x.reshape(-1, x.shape[-1]).to(pulls.dtype)
            omega, psi = self._thin(pulls.dtype)
            self.forward_sum.t().add_((omega @ rows.t()) @ pulls)
            self.backward_sum.t().add_((psi @ pulls.t()) @ rows)

    @torch.no_grad()
    def directions(self, n: int) -> Directions:
        """Return the `n` leading triplets of the summed gradient, at most the width; none where it is not finite."""
        forward, backward = self.forward_sum, self.backward_sum
        n = min(n, forward.shape[1], len(forward), len(backward)) if forward.isfinite().all() and forward.any() else 0
        if n == 0:
            return Directions(
                forward.new_zeros(0, len(forward)), forward.new_zeros(0), forward.new_zeros(0, len(backward))
            )
        basis, core = self._factors(forward, backward)
        left, value, right = torch.linalg.svd(core, full_matrices=False)
        return Directions((basis @ left[:, :n]).t().contiguous(), value[:n], right[:n].contiguous())

    def _factors(self, forward: Tensor, backward: Tensor) -> tuple[Tensor, Tensor]:
        """Return an orthonormal basis of Y and the rest of G ≈ basis · rest, of Y and Z."""
        basis = torch.linalg.qr(forward).Q
        inner, triangle = torch.linalg.qr(self.psi.t() @ basis)  # torch's lstsq differs in its last bits by call
        return basis, torch.linalg.solve_triangular(triangle, inner.t() @ backward.t(), upper=True)

    @cached_property
    def omega(self) -> Tensor:
        """Ω, (d_in, width)."""
        return self._drawn("omega", self.backward_sum.shape[0], self.forward_sum.shape[1])

    @cached_property
    def psi(self) -> Tensor:
        """Ψ, (d_out, 2 · width + 1)."""
        return self._drawn("psi", self.forward_sum.shape[0], self.backward_sum.shape[1])

    def _thin(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Return Ωᵀ and Ψᵀ in a precision: with their few numbers in front, products are faster on a processor."""
        if dtype not in self._casts:
            self._casts[dtype] = (self.omega.t().to(dtype).contiguous(), self.psi.t().to(dtype).contiguous())
        return self._casts[dtype]

    @cached_property
    def _casts(self) -> dict[torch.dtype, tuple[Tensor, Tensor]]:
        return {}

    def _drawn(self, which: str, rows: int, columns: int) -> Tensor:
        """Return a normal matrix from the sketch's own stream."""
        draw = torch.randn(rows, columns, generator=stream(self.seed, self.key, which))
        return draw.to(self.forward_sum.device)
