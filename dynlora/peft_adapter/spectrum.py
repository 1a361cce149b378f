"""The update of one module, known by its singular values: from its small factors, never from the full product."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[Any]


def singular_values(
    lora_A: Matrix, lora_B: Matrix, scaling: float, factor: Matrix | None = None
) -> NDArray[np.float64] | None:
    """Return the singular values of s · B diag(e) A, the largest first; None when a factor is not finite.

    With A.T = Q_a R_a and B = Q_b R_b they are those of s · R_b diag(e) R_a.T, at most r by r.

    Args:
        lora_A: (r, d_in).
        lora_B: (d_out, r).
        scaling: s.
        factor: e, (r,); None for ones.
    """
    length = min(*lora_A.shape, lora_B.shape[0])
    if not length:
        return np.zeros(0)
    factors = [lora_A, lora_B, *([] if factor is None else [factor])]
    if not all(np.isfinite(one).all() for one in factors):
        return None
    try:
        with np.errstate(all="ignore"):  # what overflows is found below
            left, right = (_triangle(matrix) for matrix in (lora_B, lora_A.T))
            inner = (left if factor is None else left * factor.astype(np.float64)) @ right.T
            values = abs(scaling) * np.linalg.svd(inner, compute_uv=False)[:length].astype(np.float64)
    except np.linalg.LinAlgError:
        return None
    return values if np.isfinite(values).all() else None


def _triangle(matrix: Matrix) -> Matrix:
    """Return R of matrix = Q R, in double precision."""
    return np.asarray(np.linalg.qr(matrix.astype(np.float64), mode="r"))


def norm(values: NDArray[np.float64]) -> float:
    """Return the Frobenius norm of what has these singular values: √Σσ²."""
    largest = float(values.max(initial=0.0))
    return largest * float(np.linalg.norm(values / largest)) if largest else 0.0  # squares could overflow


def effective_rank(values: NDArray[np.float64]) -> float:
    """Return how many components carry the update: (Σσ²)² / Σσ⁴, 0 when there is none."""
    largest = float(values.max(initial=0.0))
    if not largest:
        return 0.0
    shares = np.square(values / largest)
    return float(shares.sum() ** 2 / np.square(shares).sum())
