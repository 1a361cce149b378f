"""One-shot allocation: after a few steps, all ranks are set at once, by predicted loss reduction per parameter.

For the first steps every module holds what uniform LoRA gives it, while the head learns to read the model: before it
does, gradients point at the last layers. Then the leading directions of each frozen weight's mean gradient predict, to
first order, how much a further component there reduces the loss, and the budget goes to the largest predicted gains.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from dynlora.engine.allocation.solvers import greedy_ranks, proportional_ranks, toward_ranks
from dynlora.engine.context import Step
from dynlora.engine.edits import Edit, SketchGradients
from dynlora.engine.loop.schedule import Phases
from dynlora.engine.model.adapters import Adapters
from dynlora.engine.model.gradient_sketch import Directions, entropy_rank
from dynlora.engine.randomness import stream_seed

ACCUMULATED_STEPS = 8
"""Steps that are accumulated: enough for stable leading directions, few enough to be cheap."""


@dataclass
class GradientAccumulation:
    """Says when gradients are sketched, and which directions came out.

    Attributes:
        steps: optimizer steps in the running sketches.
    """

    steps: int = 0

    def observe(self, adapters: Adapters) -> None:
        """Count a step whose gradient was accumulated."""
        if any(module.sketch is not None for module in adapters):
            self.steps += 1

    def turn(self, step: int, phases: Phases, n_modules: int, *, whitened: bool = False) -> list[SketchGradients]:
        """Return the edit that begins or ends the sketch of the first reallocation after `step`, if it is time.

        Args:
            step: the step just taken; 0 before the first.
            phases: when capacity moves.
            n_modules: how many modules are sketched.
            whitened: whether `effective_ranks` will be asked for.
        """
        window = min(ACCUMULATED_STEPS, phases.allocate_every)
        ends, begins = step == phases.first_event, step + window == phases.first_event
        if not (begins or ends):
            return []
        self.steps = 0
        return [SketchGradients(tuple(range(n_modules)) if begins else (), whitened and begins)]

    def directions(self, adapters: Adapters) -> list[Directions]:
        """Return each module's leading directions, at most `max_rank`; none where no gradient was accumulated."""
        return [
            module.sketch.directions(module.max_rank, self.steps, adapters.over_processes)
            for module in adapters
            if module.sketch is not None
        ]

    def effective_ranks(self, adapters: Adapters) -> np.ndarray:
        """Return the effective rank of each module's whitened mean gradient, (n_modules,), 0 where none was sketched.

        Its scale is that of neither the loss nor the inputs: modules of any size and depth can be compared.
        """
        sketches = [module.sketch for module in adapters]
        spectra = [None if one is None else one.whitened_spectrum(adapters.over_processes) for one in sketches]
        return np.array([0.0 if spectrum is None else entropy_rank(spectrum) for spectrum in spectra])


def predicted_gain(directions: Directions, *, scaling: float, lr: float, steps: int) -> np.ndarray:
    """Return the loss reduction that components along these directions predict to first order, in nats, (n,).

    A component with a = v / √3, as long as a row of uniform LoRA, has ∂L/∂b = s σ u / √3; an optimizer that moves every
    entry of b by the learning rate in each of `steps` steps gains lr · steps · s σ ‖u‖₁ / √3.
    """
    size = directions.value * directions.left.abs().sum(1)
    return (lr * steps * scaling / 3**0.5 * size).double().cpu().numpy()


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
    scores = [np.full(rank, effective_rank) for rank, effective_rank in zip(ranks, effective_ranks, strict=True)]
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
