"""Ranks before training, suggested by the gradients of a few steps, and how far two halves of the data agree on them.

Every module has a falling list of gains: what its first, second, ... component is predicted to lower the loss by, to
first order and in one unit for all. A budget goes to the largest gains per parameter. The same is done with each half
of the data, and what both halves say alike can be trusted more than what only one of them says.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from dynlora.engine.allocation.solvers import greedy_ranks
from dynlora.engine.model.gradient_sketch import Directions
from dynlora.engine.model.modules import ModuleInfo

WEAK = 0.5
"""A family whose gain per parameter is below this part of the mean, in both halves, may be left out."""

LEAST_RANKED = 3
"""Fewest modules whose order can be told alike or different."""


@dataclass(frozen=True)
class Family:
    """Modules of one kind.

    Attributes:
        name: of the kind, such as attention.self.query.
        modules: how many there are.
        mean_rank: that is suggested.
        parameters_share: of the suggested parameters, 0 to 1.
        gain_share: of all predicted gains at uniform ranks, 0 to 1.
        gain_per_parameter: over the mean of all modules; 1 is average.
        low, high: the least and the most of the same in all data and in each half.
        can_go: whether it may be left out, by both halves.
    """

    name: str
    modules: int
    mean_rank: float
    parameters_share: float
    gain_share: float
    gain_per_parameter: float
    low: float
    high: float
    can_go: bool


@dataclass(frozen=True)
class Suggestion:
    """What a look at gradients suggests.

    Attributes:
        ranks: by module.
        parameters: that they come to, at most the budget.
        families: the largest gain per parameter first.
        correlation: of the modules' gains per parameter between the halves (Spearman); None where it is not defined.
        agreement: part of the budget that both halves put at the same place, 0 to 1.
        gain: of each module at its uniform rank, over the sum of all, (n_modules,).
    """

    ranks: list[int]
    parameters: int
    families: list[Family]
    correlation: float | None
    agreement: float
    gain: np.ndarray


@dataclass(frozen=True)
class RankRequest:
    """What ranks are suggested for.

    Attributes:
        modules: in order.
        rank: of uniform LoRA.
        limits: largest rank, by module.
        budget: parameters in all.
        min_rank: smallest rank of a module that is not left out.
        left_out: kinds that get no rank.
    """

    modules: Sequence[ModuleInfo]
    rank: int
    limits: Sequence[int]
    budget: int
    min_rank: int = 1
    left_out: Sequence[str] = ()

    @property
    def costs(self) -> np.ndarray:
        """Parameters of one component, by module."""
        return np.array([module.cost for module in self.modules])

    def ranks(self, gains: Sequence[np.ndarray]) -> np.ndarray:
        """Return the ranks that take the largest gains per parameter within the budget, (n_modules,)."""
        adapted = [m for m, module in enumerate(self.modules) if module.kind not in self.left_out]
        by_module = np.zeros(len(self.modules), int)
        by_module[adapted] = greedy_ranks(
            [gains[m] for m in adapted],
            [int(self.costs[m]) for m in adapted],
            [self.limits[m] for m in adapted],
            budget=self.budget,
            min_rank=self.min_rank,
        )
        return by_module


def component_gains(directions: Directions) -> np.ndarray:
    """Return what each component along these directions lowers the loss by, up to a factor equal for all, (n,).

    To first order, with every entry of b moved by the same amount, as Adam does: σ ‖u‖₁.
    """
    return (directions.value * directions.left.abs().sum(1)).double().cpu().numpy()


def suggest(gains: Sequence[np.ndarray], halves: Sequence[Sequence[np.ndarray]], request: RankRequest) -> Suggestion:
    """Return the ranks that gains suggest, and how far both halves of the data agree.

    Args:
        gains: of all data, by module, falling, (n,).
        halves: the same from each half.
        request: modules and budget.
    """
    ranks = request.ranks(gains)
    by_half = [request.ranks(half) for half in halves]
    spent = [(one * request.costs).sum() for one in by_half]
    moved = np.abs(by_half[0] - by_half[1]) @ request.costs / max(1, sum(spent))
    whole, *each = [_density(one, request) for one in (gains, *halves)]
    total = sum(_at_uniform(gain, request.rank) for gain in gains)
    share = np.array([_at_uniform(gain, request.rank) for gain in gains]) / (total or 1.0)
    return Suggestion(
        ranks.tolist(),
        int(ranks @ request.costs),
        _families(ranks, share, (whole, *each), request),
        _correlation(*each),
        float(1 - moved),
        share,
    )


def _at_uniform(gain: np.ndarray, rank: int) -> float:
    """Return the gain of a module at its uniform rank; what is not finite counts as none."""
    first = gain[:rank]
    return float(first[np.isfinite(first)].sum())


def _density(gains: Sequence[np.ndarray], request: RankRequest) -> np.ndarray:
    """Return each module's gain per parameter at uniform ranks, (n_modules,)."""
    return np.array([_at_uniform(gain, request.rank) for gain in gains]) / (request.rank * request.costs)


def _correlation(one: np.ndarray, other: np.ndarray) -> float | None:
    if len(one) < LEAST_RANKED or np.ptp(one) == 0 or np.ptp(other) == 0:
        return None
    return float(stats.spearmanr(one, other)[0])  # pyright: ignore[reportArgumentType]


def _families(
    ranks: np.ndarray, share: np.ndarray, density: Sequence[np.ndarray], request: RankRequest
) -> list[Family]:
    """Return one entry for each kind of module, the largest gain per parameter first."""
    costs, spent = request.costs, max(1, int(ranks @ request.costs))
    families = []
    for kind in dict.fromkeys(module.kind for module in request.modules):
        of = np.array([module.kind == kind for module in request.modules])
        whole, *each = [_relative(one, costs, of) for one in density]
        families.append(
            Family(
                kind,
                int(of.sum()),
                float(ranks[of].mean()),
                float(ranks[of] @ costs[of] / spent),
                float(share[of].sum()),
                whole,
                min(whole, *each),
                max(whole, *each),
                max(each) < WEAK,
            )
        )
    return sorted(families, key=lambda family: -family.gain_per_parameter)


def _relative(density: np.ndarray, costs: np.ndarray, of: np.ndarray) -> float:
    """Return the gain per parameter of some modules over that of all."""
    mean = density @ costs / costs.sum()
    return float(density[of] @ costs[of] / costs[of].sum() / mean) if mean > 0 else 1.0
