"""Commitment: after a few steps of looking, all ranks are set at once, by what the gradients promise per parameter.

For the first steps every module holds what uniform LoRA gives it, while the head learns to read the model: before it
does, gradients point at the last layers. Then the leading directions of each frozen weight's mean gradient say what a
further component there would take off the loss, and the budget goes to the components that promise most.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from dynlora.engine.allocation.greedy import committed_ranks, toward_ranks
from dynlora.engine.context import Step
from dynlora.engine.edits import Edit
from dynlora.engine.model.adapters import Adapters
from dynlora.engine.model.gradient_sketch import Directions
from dynlora.engine.randomness import stream_seed
from dynlora.strategies.dynamic.gradient_accumulation import promised

PROMISES = ("model", "layer")
"""What promises are compared across: as they are, or each in units of its layer's mean."""


def commitment(
    adapters: Adapters,
    heard: Sequence[Directions],
    worth: np.ndarray,
    step: Step,
    promises: str,
    *,
    min_rank: int,
    along: bool,
    lot: int | None,
) -> list[Edit]:
    """Return the edits that set all ranks anew; none when nothing was heard.

    Args:
        adapters: the adapted modules.
        heard: the leading directions of each module's gradient.
        worth: of each component, (n_modules, widest max_rank); where a module shrinks, the least goes.
        step: where training stands; a promise counts for the steps that are left.
        promises: one of `PROMISES`.
        min_rank: components every module keeps, as far as the budget goes.
        along: new rows of A point along the directions, and every component starts anew; False keeps what there is.
        lot: promises are drawn from this lot, the control; None takes those that were heard.
    """
    if len(heard) < len(adapters):
        return []
    left = step.total - step.index
    gains = [promised(d, scaling=m.scaling, lr=step.lr, steps=left) for d, m in zip(heard, adapters, strict=True)]
    if lot is not None:
        rng = np.random.default_rng(stream_seed(adapters.seed, "commitment by lot", lot))
        gains = [np.sort(rng.random(m.max_rank))[::-1] * c for m, c in zip(adapters, adapters.costs, strict=True)]
    elif promises == "layer":
        gains = within_layers(gains, adapters.costs, [module.info.layer for module in adapters])
    room = [module.max_rank for module in adapters]
    ranks = committed_ranks(gains, adapters.costs, room, budget=adapters.spendable, min_rank=min_rank)
    return toward_ranks(adapters, worth, ranks, gains, heard if along else None)


def within_layers(gains: Sequence[np.ndarray], cost: Sequence[int], layers: Sequence[int | None]) -> list[np.ndarray]:
    """Return promises over the mean promise per parameter of their layer, so that each layer asks for about as much.

    A promise is of first order. Where everything after a layer hangs on it, its gradient is large, but so is what bends
    the loss back: between the layers of a deep model the sum of gradients says more about depth than about need.

    Args:
        gains: per module, what its components promise, in loss, (n,); what is not finite stays out of the mean.
        cost: parameters of one component, by module.
        layers: of each module; those outside of blocks, None, count as one layer.
    """
    promised_by: Counter[int | None] = Counter()
    parameters: Counter[int | None] = Counter()
    for gain, c, layer in zip(gains, cost, layers, strict=True):
        promised_by[layer] += gain[np.isfinite(gain)].sum()
        parameters[layer] += c
    mean = {layer: total / parameters[layer] for layer, total in promised_by.items()}
    return [gain / (mean[layer] or 1.0) for gain, layer in zip(gains, layers, strict=True)]
