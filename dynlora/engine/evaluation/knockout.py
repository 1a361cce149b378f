"""Ablation: what held-out examples lose when the adapter of one module, or of several, is switched off.

δ_m = L(all but m) - L(all), per row. It is the effect itself that an allocator's score only guesses at.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from dynlora.analysis.stats import bootstrap_interval
from dynlora.engine.data.batches import Tokens
from dynlora.engine.evaluation.evaluate import Predictions
from dynlora.engine.evaluation.inference import AdaptedModel
from dynlora.engine.model.adapters import Adapters


@dataclass(frozen=True)
class Effect:
    """What switching modules off does to the loss of n rows.

    Attributes:
        modules: which are off, by position.
        loss: mean loss without them.
        delta: mean loss without them, less that with all; above zero they help.
        low, high: 95 % bootstrap interval of `delta` over the rows.
        changed: fraction of the rows whose prediction is another, 0 to 1; of numbers, those that move at all.
        by_group: `delta` over the rows of each input group, NaN for an empty one.
    """

    modules: tuple[int, ...]
    loss: float
    delta: float
    low: float
    high: float
    changed: float
    by_group: tuple[float, ...]


@contextmanager
def switched_off(adapters: Adapters, modules: Sequence[int]) -> Iterator[None]:
    """Leave the base's own modules in the place of some adapted ones inside the block."""
    chosen = [adapters[index] for index in modules]
    before = [module.enabled for module in chosen]
    try:
        for module in chosen:
            module.enabled = False
        yield
    finally:
        for module, enabled in zip(chosen, before, strict=True):
            module.enabled = enabled


def knocked_out(
    model: AdaptedModel,
    tokens: Tokens,
    whole: Predictions,
    modules: Sequence[int],
    *,
    group: np.ndarray | None = None,
    groups: int = 0,
    seed: int = 0,
) -> Effect:
    """Return what `tokens` lose without some modules.

    Args:
        model: a trained model.
        tokens: labelled rows.
        whole: predictions for the rows with all adapters on.
        modules: positions of the modules that are switched off together.
        group: index of each row's input group, (n,), or None.
        groups: number of the groups.
        seed: of the resampling; the same draws for every module, so that their intervals can be compared.
    """
    with switched_off(model.adapters, modules):
        without = model.predictions(tokens)
    delta = without.loss.astype(float) - whole.loss
    low, high = bootstrap_interval(delta, seed)
    by_group = [] if group is None else [delta[group == index] for index in range(groups)]
    return Effect(
        modules=tuple(modules),
        loss=float(without.loss.mean()),
        delta=float(delta.mean()),
        low=low,
        high=high,
        changed=float((without.prediction != whole.prediction).mean()),
        by_group=tuple(float(part.mean()) if len(part) else float("nan") for part in by_group),
    )
