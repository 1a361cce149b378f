"""Ablation: what held-out examples lose when the adapter of one module, or of several, is switched off.

δ_m = L(all but m) - L(all), per row. It is the effect itself that an allocator's score only guesses at.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from dynlora.analysis.stats import bootstrap_interval
from dynlora.engine.data.batches import Tokens
from dynlora.engine.evaluation.evaluate import Predictions
from dynlora.engine.evaluation.inference import AdaptedModel
from dynlora.engine.model.adapters import Adapters
from dynlora.store.measurements import KnockedOut


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
) -> KnockedOut:
    """Return what `tokens` lose without some modules.

    Args:
        model: a trained model.
        tokens: labelled rows.
        whole: predictions for the rows with all adapters on.
        modules: positions of the modules that are switched off together.
        group: index of each row's input group, (n,), or None.
        groups: number of the groups.
    """
    with switched_off(model.adapters, modules):
        without = model.predictions(tokens)
    effect = effect_of(modules, (whole.loss, whole.prediction), (without.loss, without.prediction))
    delta = without.loss.astype(float) - whole.loss
    parts = [] if group is None else [delta[group == index] for index in range(groups)]
    means = tuple(float(part.mean()) if len(part) and np.isfinite(part).all() else None for part in parts)
    return effect.model_copy(update={"by_group": means})


Judged = tuple[np.ndarray, np.ndarray]
"""Loss and prediction of each row, (n,) both."""


def effect_of(modules: Sequence[int], whole: Judged, without: Judged, seed: int = 0) -> KnockedOut:
    """Return what rows lose without some modules.

    Args:
        modules: positions of those that are off.
        whole: the rows with all modules.
        without: the same rows without these.
        seed: of the resampling; the same draws for every module, so that their intervals can be compared.
    """
    delta = without[0].astype(float) - whole[0]
    low, high = bootstrap_interval(delta, seed)
    return KnockedOut(
        modules=tuple(modules),
        loss=float(without[0].mean()),
        delta=float(delta.mean()),
        low=low,
        high=high,
        changed=float((without[1] != whole[1]).mean()),
        halves=(float(delta[::2].mean()), float(delta[1::2].mean())) if len(delta) > 1 else None,
    )
