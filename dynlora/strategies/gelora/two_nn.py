"""TwoNN: the intrinsic dimension of points, from the distances to each one's two nearest neighbours."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

LEAST = 10
"""Different points below which nothing is said of a dimension."""


EQUAL = 1e-6
"""Distance, as a fraction of the largest, up to which two points are one: equal rows differ in their last bits."""


@dataclass(frozen=True)
class Dimension:
    """An estimate.

    Attributes:
        value: the dimension, a number of degrees of freedom.
        error: its standard error.
        points: different points it rests on.
    """

    value: float
    error: float
    points: int


@torch.no_grad()
def intrinsic_dimension(points: Tensor, discard: float = 0.1) -> Dimension | None:
    """Return the intrinsic dimension of points (n, d), or None where fewer than ten differ.

    With r1 and r2 the distances to the two nearest neighbours, μ = r2 / r1 follows P(μ > t) = t^-d where the density is
    even (Facco et al. 2017, arXiv 1803.06992). The largest μ, where it is least even, are discarded: of the sorted
    log μ the first k = (1 - discard) n count in full, the others as no less than the k-th, which is the maximum
    likelihood under such a cut: d = (k - 1) / (Σ_{i ≤ k} log μ_i + (n - k) log μ_k), its error d / √(k - 2).

    Points that are equal count once: their r1 would be zero. Rotation, shift and scale of the points change nothing.

    Args:
        points: (n, d); n² distances are computed.
        discard: fraction of the largest μ that is cut.
    """
    points = points.detach().cpu().double()  # not every accelerator has such numbers
    if len(points) < LEAST or not points.isfinite().all():
        return None
    distance = torch.cdist(points, points, compute_mode="donot_use_mm_for_euclid_dist")
    different = ~(distance <= EQUAL * distance.max()).triu(1).any(0)
    n = int(different.sum())
    if n < LEAST:
        return None
    near = distance[different][:, different].fill_diagonal_(math.inf).topk(2, dim=1, largest=False).values
    logs = (near[:, 1] / near[:, 0]).log().sort().values
    k = max(3, math.floor((1 - discard) * n))
    total = float(logs[:k].sum() + (n - k) * logs[k - 1])
    if not 0 < total < math.inf:
        return None
    value = (k - 1) / total
    return Dimension(value, value / math.sqrt(k - 2), n)
