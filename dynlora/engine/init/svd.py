"""The leading singular triplets of a matrix, the same on every call."""

from __future__ import annotations

import torch
from torch import Tensor

EXACT = 256
"""Up to so many rows or columns all triplets are computed: that is as fast, and exact."""

ROUNDS = 4
"""Products with the matrix and its transpose that sharpen the basis."""


@torch.no_grad()
def leading(matrix: Tensor, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Return u (rows, n), σ (n,) falling, and v (n, columns) of the n leading triplets; fewer where there are not n.

    Large matrices are projected on a random subspace of twice the width, sharpened by power iteration (Halko et al.
    2011, arXiv 0909.4061). The largest entry of every v is positive, since a decomposition leaves the signs open.

    Args:
        matrix: (rows, columns).
        n: triplets wanted.
        generator: the subspace is drawn from it.
    """
    n = min(n, *matrix.shape)
    width = max(2 * n, 8)
    if min(*matrix.shape) <= max(EXACT, width):
        u, value, v = torch.linalg.svd(matrix, full_matrices=False)
    else:
        draw = torch.randn(matrix.shape[1], width, generator=generator).to(matrix)
        basis = torch.linalg.qr(matrix @ draw).Q
        for _ in range(ROUNDS):
            basis = torch.linalg.qr(matrix @ torch.linalg.qr(matrix.t() @ basis).Q).Q
        inner, value, v = torch.linalg.svd(basis.t() @ matrix, full_matrices=False)
        u = basis @ inner
    u, value, v = u[:, :n], value[:n], v[:n]
    largest = v.abs().argmax(1, keepdim=True)
    sign = torch.where(v.gather(1, largest) < 0, -1.0, 1.0)
    return u * sign.t(), value, v * sign
