"""One-shot allocation: after a few steps, all ranks are set at once, by predicted loss reduction per parameter.

For the first steps every module holds what uniform LoRA gives it, while the head learns to read the model: before it
does, gradients point at the last layers. Then the leading directions of each frozen weight's mean gradient predict, to
first order, how much a further component there reduces the loss, and the budget goes to the largest predicted gains.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence

import numpy as np

from dynlora.engine.allocation.greedy import greedy_ranks, toward_ranks
from dynlora.engine.allocation.solvers import proportional_ranks
from dynlora.engine.context import Step
from dynlora.engine.edits import Edit
from dynlora.engine.model.adapters import Adapters
from dynlora.engine.model.gradient_sketch import Directions
from dynlora.engine.randomness import stream_seed
from dynlora.strategies.dynamic.gradient_accumulation import predicted_gain

RANK_BY = ("gains", "layer", "family", "spectral")
"""What the first reallocation sets ranks by.

Predicted gains (gains); gains in units of the mean of their layer or family; or the effective rank of each whitened
gradient (spectral). A family are the modules that compute the same in every layer, such as all query projections.
"""


def one_shot_allocation(
    adapters: Adapters,
    directions: Sequence[Directions],
    importance: np.ndarray,
    step: Step,
    rank_by: str,
    *,
    min_rank: int,
    allocation_seed: int | None,
) -> list[Edit]:
    """Return the edits that set all ranks at once; none when no gradient was accumulated.

    Args:
        adapters: the adapted modules.
        directions: the leading directions of each module's gradient.
        importance: of each component, (n_modules, widest max_rank); where a module shrinks, the least goes.
        step: where training is; a gain is predicted for the steps that are left.
        rank_by: one of `RANK_BY`; "spectral" compares as "gains" does, and random allocation ignores it.
        min_rank: minimum rank of every module, as far as the budget allows.
        allocation_seed: draws the gains at random instead, the control; None takes the predicted ones.
    """
    if len(directions) < len(adapters):
        return []
    left = step.total - step.index
    pairs = zip(directions, adapters, strict=True)
    gains = [predicted_gain(d, scaling=m.scaling, lr=step.lr, steps=left) for d, m in pairs]
    if allocation_seed is not None:
        # The stream keeps its first name: another name would be another random allocation.
        stream = "commitment by lot"  # words: allow
        rng = np.random.default_rng(stream_seed(adapters.seed, stream, allocation_seed))
        gains = [np.sort(rng.random(m.max_rank))[::-1] * c for m, c in zip(adapters, adapters.costs, strict=True)]
    elif rank_by in ("layer", "family"):
        groups = [module.info.layer if rank_by == "layer" else module.info.kind for module in adapters]
        gains = within_groups(gains, adapters.costs, groups)
    max_ranks = [module.max_rank for module in adapters]
    ranks = greedy_ranks(gains, adapters.costs, max_ranks, budget=adapters.spendable, min_rank=min_rank)
    return toward_ranks(adapters, importance, ranks, gains)


def spectral_allocation(
    adapters: Adapters, importance: np.ndarray, effective_ranks: np.ndarray, *, min_rank: int
) -> list[Edit]:
    """Return the edits that set all ranks at once, in proportion to effective ranks; none where nothing was sketched.

    Args:
        adapters: the adapted modules.
        importance: of each component, (n_modules, widest max_rank); where a module shrinks, the least goes.
        effective_ranks: of each module's whitened gradient, (n_modules,); 0 where there is none.
        min_rank: minimum rank of every module, as far as the budget allows.
    """
    if not effective_ranks.any():
        return []
    most = np.array([module.max_rank for module in adapters])
    least, costs = np.full(len(most), min_rank), np.array(adapters.costs)
    ranks = proportional_ranks(effective_ranks, costs, budget=adapters.spendable, least=least, most=most)
    scores = [np.full(rank, found) for rank, found in zip(ranks, effective_ranks, strict=True)]
    return toward_ranks(adapters, importance, ranks, scores)


def within_groups(gains: Sequence[np.ndarray], cost: Sequence[int], groups: Sequence[Hashable]) -> list[np.ndarray]:
    """Return predicted gains over the mean gain per parameter of their layer or family: these compete on equal terms.

    The prediction is of first order. Where everything after a layer depends on it, its gradient is large, but so is the
    curvature: between the layers of a deep model the sum of gradients says more about depth than about need. Between
    families it says more about the size of their inputs.

    Args:
        gains: per module, the predicted gains of its components, in nats, (n,); the mean leaves out what is not finite.
        cost: parameters of one component, by module.
        groups: layer or family of each module; modules outside of blocks, None, count as one layer.
    """
    gain_by_group: Counter[Hashable] = Counter()
    parameters: Counter[Hashable] = Counter()
    for gain, c, group in zip(gains, cost, groups, strict=True):
        gain_by_group[group] += gain[np.isfinite(gain)].sum()
        parameters[group] += c
    mean = {group: total / parameters[group] for group, total in gain_by_group.items()}
    return [gain / (mean[group] or 1.0) for gain, group in zip(gains, groups, strict=True)]
