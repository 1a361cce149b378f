"""One-shot allocation: after a few steps, all ranks are set at once, by predicted loss reduction per parameter.

For the first steps every module holds what uniform LoRA gives it, while the head learns to read the model: before it
does, gradients point at the last layers. Then the leading directions of each frozen weight's mean gradient predict, to
first order, how much a further component there reduces the loss, and the budget goes to the largest predicted gains.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from dynlora.engine.allocation.greedy import greedy_ranks, toward_ranks
from dynlora.engine.context import Step
from dynlora.engine.edits import Edit
from dynlora.engine.model.adapters import Adapters
from dynlora.engine.model.gradient_sketch import Directions
from dynlora.engine.randomness import stream_seed
from dynlora.strategies.dynamic.gradient_accumulation import predicted_gain

GAIN_SCOPES = ("model", "layer")
"""Where predicted gains are compared: in the whole model, or each in units of its layer's mean."""


def one_shot_allocation(
    adapters: Adapters,
    directions: Sequence[Directions],
    importance: np.ndarray,
    step: Step,
    gain_scope: str,
    *,
    min_rank: int,
    along: bool,
    allocation_seed: int | None,
) -> list[Edit]:
    """Return the edits that set all ranks at once; none when no gradient was accumulated.

    Args:
        adapters: the adapted modules.
        directions: the leading directions of each module's gradient.
        importance: of each component, (n_modules, widest max_rank); where a module shrinks, the least goes.
        step: where training is; a gain is predicted for the steps that are left.
        gain_scope: one of `GAIN_SCOPES`.
        min_rank: minimum rank of every module, as far as the budget allows.
        along: new rows of A point along the directions, and every component restarts; False keeps what there is.
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
    elif gain_scope == "layer":
        gains = within_layers(gains, adapters.costs, [module.info.layer for module in adapters])
    max_ranks = [module.max_rank for module in adapters]
    ranks = greedy_ranks(gains, adapters.costs, max_ranks, budget=adapters.spendable, min_rank=min_rank)
    return toward_ranks(adapters, importance, ranks, gains, directions if along else None)


def within_layers(gains: Sequence[np.ndarray], cost: Sequence[int], layers: Sequence[int | None]) -> list[np.ndarray]:
    """Return predicted gains over the mean gain per parameter of their layer, so that layers compete on equal terms.

    The prediction is of first order. Where everything after a layer depends on it, its gradient is large, but so is the
    curvature: between the layers of a deep model the sum of gradients says more about depth than about need.

    Args:
        gains: per module, the predicted gains of its components, in nats, (n,); the mean leaves out what is not finite.
        cost: parameters of one component, by module.
        layers: of each module; those outside of blocks, None, count as one layer.
    """
    gain_by_layer: Counter[int | None] = Counter()
    parameters: Counter[int | None] = Counter()
    for gain, c, layer in zip(gains, cost, layers, strict=True):
        gain_by_layer[layer] += gain[np.isfinite(gain)].sum()
        parameters[layer] += c
    mean = {layer: total / parameters[layer] for layer, total in gain_by_layer.items()}
    return [gain / (mean[layer] or 1.0) for gain, layer in zip(gains, layers, strict=True)]
