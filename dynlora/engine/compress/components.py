"""The update of one module as components, the one with the largest effect first: from its small factors alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dynlora.engine.randomness import stream_seed

RIDGE = 1e-2
"""Fraction of a second moment that is replaced by a plain one: directions that few rows showed keep some weight."""

NEGLIGIBLE = 1e-7
"""Singular value, as a fraction of the module's largest, that is rounding and no component."""


@dataclass(frozen=True)
class Components:
    """ΔW = scaling · Σ_k b_k a_kᵀ, sorted by the components' effect.

    Attributes:
        A: rows a_k, (n, d_in).
        B: columns b_k, (d_out, n).
        effect: σ_k², what a component adds to the squared update under the weighting, (n,), falling.
        scaling: factor of the product.
        cost: parameters of one component, d_in + d_out.
    """

    A: Tensor
    B: Tensor
    effect: Tensor
    scaling: float
    cost: int

    def __len__(self) -> int:
        """Return the number of components."""
        return len(self.effect)


@torch.no_grad()
def components(
    A: Tensor, B: Tensor, scaling: float, *, inputs: Tensor | None = None, outputs: Tensor | None = None
) -> Components:
    """Return the update scaling · B A as components whose effects are orthogonal under the weighting.

    The effect of an update X is tr(G X C Xᵀ) with C the second moment of the module's inputs and G that of the loss's
    gradient at its outputs: to second order, and with inputs and gradients taken as independent, the mean square of
    what X changes in the loss. For X = s B K A it needs A C Aᵀ and Bᵀ G B alone, (r, r). With A C Aᵀ = M Mᵀ and
    Bᵀ G B = N Nᵀ, the singular values of s Nᵀ M are the σ_k, and keeping the first ones is the best truncation.

    Args:
        A: (r, d_in).
        B: (d_out, r).
        scaling: s.
        inputs: A C Aᵀ, (r, r); None counts every direction of the input alike (C = 1).
        outputs: Bᵀ G B, (r, r); None counts every direction of the output alike (G = 1).

    Returns:
        the components on the processor, whatever device A and B are on.
    """
    down, up = A.cpu().double(), B.cpu().double()  # not every accelerator has double precision
    rows, columns, effect = basis(down, up, scaling, inputs, outputs)
    cost = A.shape[1] + B.shape[0]
    return Components((rows @ down).to(A.dtype), (up @ columns).to(B.dtype), effect, scaling, cost)


def basis(
    A: Tensor, B: Tensor, scaling: float, inputs: Tensor | None, outputs: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Return R, (n, r), C, (r, n), and effects, (n,), falling: components are the rows of R A and the columns of B C.

    R C = 1. A and B are on the processor and in double precision; all else is as in `components`.
    """
    plain_in, plain_out = A @ A.t(), B.t() @ B
    root_in = _root(plain_in if inputs is None else _ridged(inputs.double(), plain_in))
    root_out = _root(plain_out if outputs is None else _ridged(outputs.double(), plain_out))
    left, value, _ = torch.linalg.svd(scaling * root_out.t() @ root_in)
    large = value > value[:1] * NEGLIGIBLE
    left, value = left[:, large], value[large]
    rows = left.t() @ root_out.t()
    size = _usual_size(A) / (rows @ A).norm(dim=1).clamp_min(1e-300)
    return rows * size.unsqueeze(1), torch.linalg.pinv(root_out.t()) @ left / size, value.square()


def _ridged(moment: Tensor, plain: Tensor) -> Tensor:
    """Return a second moment mixed with the plain one at the same trace, so that no direction of the update is lost."""
    total = plain.trace()
    level = moment.trace() / total if total > 0 else moment.new_zeros(())
    if not level > 0:
        return plain  # nothing was seen of this module
    return (1 - RIDGE) * moment + RIDGE * level * plain


def _root(moment: Tensor) -> Tensor:
    """Return a symmetric M with M Mᵀ = moment, (r, r), positive semidefinite."""
    value, vector = torch.linalg.eigh((moment + moment.t()) / 2)
    return (vector * value.clamp_min(0).sqrt()) @ vector.t()


def _usual_size(rows: Tensor) -> Tensor:
    """Return the root mean square length of rows, (): factors keep the size that training gave them."""
    return rows.square().sum(1).mean().sqrt() if len(rows) else rows.new_ones(())


ROUNDING = 1e-5
"""Share by which effects may differ that are equal but for the rounding of their factors, kept in single precision."""

Order = np.ndarray
"""All components, (n, 2): module and position in it, the first to be kept first."""


def by_global_threshold(tables: Sequence[Components], seed: int) -> Order:
    """Order by effect per parameter over all modules: the first ones are those above one threshold on σ² / cost.

    Equal ones take turns: the first component of every module comes before the second of any.
    """
    places = _places(tables)
    gain = np.concatenate([_effect(table) / table.cost for table in tables]) if len(places) else np.zeros(0)
    return places[np.lexsort((places[:, 0], places[:, 1], _levels(gain)))]


def _levels(gain: np.ndarray) -> np.ndarray:
    """Return which level each number belongs to, 0 for the largest; what differs by rounding alone shares one."""
    falling = np.argsort(-gain, kind="stable")
    levels = np.zeros(len(gain), int)
    levels[falling[1:]] = np.cumsum(gain[falling[1:]] < gain[falling[:-1]] * (1 - ROUNDING))
    return levels


def by_level(tables: Sequence[Components], seed: int) -> Order:
    """Order by position: uniform truncation, the first component of every module before the second of any.

    Where not all modules can have one more, a keyed draw says which do.
    """
    places = _places(tables)
    turn = np.random.default_rng(stream_seed(seed, "uniform truncation")).permutation(len(tables))
    return places[np.lexsort((turn[places[:, 0]], places[:, 1]))]


def by_energy(tables: Sequence[Components], seed: int) -> Order:
    """Order by the fraction of a module's Σσ² that the components before it explain: PEFT's rule, one for all."""
    places = _places(tables)
    before = []
    for table in tables:
        effect = _effect(table)
        before.append((np.cumsum(effect) - effect) / max(float(effect.sum()), 1e-300))
    explained = np.concatenate(before) if len(places) else np.zeros(0)
    return places[np.lexsort((places[:, 0], explained))]


def at_random(tables: Sequence[Components], seed: int) -> Order:
    """Order by a keyed draw: the control."""
    places = _places(tables)
    return places[np.random.default_rng(stream_seed(seed, "random components")).permutation(len(places))]


METHODS: dict[str, Callable[[Sequence[Components], int], Order]] = {
    "global": by_global_threshold,
    "uniform": by_level,
    "energy": by_energy,
    "random": at_random,
}
"""The orders by name; each takes the components and a seed."""


def within_budget(order: Order, tables: Sequence[Components], budget: int) -> list[np.ndarray]:
    """Return the positions of each module's components that a budget of parameters holds: the longest beginning."""
    costs = np.array([table.cost for table in tables])[order[:, 0]] if len(order) else np.zeros(0, int)
    count = int(np.searchsorted(np.cumsum(costs), budget, side="right"))
    first = order[:count]
    return [np.sort(first[first[:, 0] == index, 1]) for index in range(len(tables))]


def _places(tables: Sequence[Components]) -> np.ndarray:
    """Return module and position of every component, (n, 2)."""
    return np.array([(m, k) for m, table in enumerate(tables) for k in range(len(table))], dtype=int).reshape(-1, 2)


def _effect(table: Components) -> np.ndarray:
    return table.effect.double().cpu().numpy()
