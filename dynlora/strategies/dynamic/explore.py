"""Wide, then cut: every module learns with more components than the budget holds; the trained update says which stay.

Gradients at the start say little about where rank is needed: other modules can compensate at first. What was learned
says it, and more where a module had room to learn. So all modules begin with `explore` times the uniform rank, and
three cuts lead to the budget, each by what the components of the trained update do to the loss.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from dynlora.engine.compress.components import basis
from dynlora.engine.edits import Edit
from dynlora.engine.edits.components import Recompose
from dynlora.engine.model.adapters import Adapters
from dynlora.engine.model.lora_linear import LoraLinear

CUTS, FIRST_CUT, LAST_CUT = 3, 0.2, 0.5
"""How many cuts there are, and after which fractions of the run the first and the last one come."""

MEMORY = 0.9
"""Fraction of the old average of the curvature that is kept at each step."""


ALIKE = 1.25
"""Coefficient of variation of the modules' effects below which need is everywhere: every module keeps a component.

It was 0.93 and less where all of 36 modules need rank, 1.68 and more where twelve do (two draws each, last cut).
"""


def cut_steps(total: int) -> list[int]:
    """Return the steps after which components are cut, in a run of `total` steps."""
    return sorted({max(1, round(share * total)) for share in np.linspace(FIRST_CUT, LAST_CUT, CUTS)})


@dataclass
class Exploration:
    """The curvature of the loss in each module's own components: averages of K Kᵀ and Kᵀ K with K = ∂L/∂A Aᵀ.

    K, (r, r), is the gradient for a change of the update s B X A at X = 1. With the averages L of K Kᵀ and R of Kᵀ K,
    L ⊗ R / tr(L) approximates the second moment of the gradient, as Shampoo does (arXiv 1802.09568), and with it what a
    change of the update does to the loss. It needs no further pass and nothing of the inputs.

    Attributes:
        outputs, inputs: L and R by module name, (r, r).
        left: effect of what the last cut left, by module name.
    """

    outputs: dict[str, Tensor] = field(default_factory=dict[str, Tensor])
    inputs: dict[str, Tensor] = field(default_factory=dict[str, Tensor])
    left: dict[str, float] = field(default_factory=dict[str, float])

    def observe(self, adapters: Adapters) -> None:
        """Take the gradients of this step into the averages."""
        for module in adapters:
            gradient = module.lora_A.grad
            if gradient is None or not module.rank:
                continue
            inner = (gradient[: module.rank] @ module.lora_A[: module.rank].t()).float()
            for averages, moment in ((self.outputs, inner @ inner.t()), (self.inputs, inner.t() @ inner)):
                old = averages.get(module.info.name)
                if old is None or len(old) != len(moment):
                    old = averages[module.info.name] = torch.zeros_like(moment)
                old.lerp_(moment, 1 - MEMORY)

    def importance(self, adapters: Adapters) -> Tensor:
        """Return each module's effect, Σ_k σ_k², (n_modules,).

        σ_k² is the effect of a component, by which cuts are made; Σ_k σ_k² = tr(L R) / tr L. Right after a cut it is
        that of the components which are left.
        """
        sums = []
        for module in adapters:
            outputs, inputs = (averages.get(module.info.name) for averages in (self.outputs, self.inputs))
            if outputs is None or inputs is None or len(outputs) != module.rank:
                sums.append(module.lora_A.new_full((), self.left.get(module.info.name, 0.0)))
            else:
                sums.append((outputs * inputs).sum() / outputs.trace().clamp_min(1e-30))
        return torch.stack(sums)

    def cut(
        self,
        adapters: Adapters,
        target: float,
        excess: float,
        *,
        min_rank: int | None = None,
        draw: np.random.Generator | None = None,
    ) -> tuple[list[Edit], float]:
        """Return the edits that leave at most `target` parameters, and what then exceeds the budget; forget averages.

        Where a factor or an average is not finite there are none: training has diverged, and says so.

        A component's score is its effect per parameter, times that of its whole module to the power (c / 2)²: c is the
        `coefficient_of_variation` over modules, so that components are judged alone where all modules matter alike, and
        of equal components those stay whose module has more to keep. Where modules matter about alike, see `ALIKE`, the
        order between them is noise, and each keeps one.

        Args:
            adapters: the adapted modules.
            target: parameters that components may have.
            excess: parameters over budget before the cut, at least 1.
            min_rank: components that a module keeps before any has more, as far as the target allows; None: 1 where
                modules matter about alike, else 0.
            draw: draws the scores at random, the control.
        """
        factors = [part for module in adapters for part in (module.lora_A, module.lora_B)]
        if not all(bool(one.isfinite().all()) for one in (*factors, *self.outputs.values(), *self.inputs.values())):
            return [], excess
        bases = [self._basis(module) for module in adapters]
        self.outputs.clear()
        self.inputs.clear()
        costs = adapters.costs
        effects = [(effect / cost).numpy() for (_, _, effect), cost in zip(bases, costs, strict=True)]
        totals = np.array([effect.sum() for effect in effects])
        variation = coefficient_of_variation(totals)
        scores = [
            effect * total ** (variation / 2) ** 2 if draw is None else draw.random(len(effect))
            for effect, total in zip(effects, totals / max(totals.max(initial=0.0), 1e-300), strict=True)
        ]
        orders, used = _within(scores, costs, target, int(variation < ALIKE) if min_rank is None else min_rank)
        left = max(1.0, used / adapters.spendable)
        change = (excess / left) ** 2
        for module, (_, _, effect), order in zip(adapters, bases, orders, strict=True):
            self.left[module.info.name] = float(effect[order].sum())
        return [
            Recompose(index, rows[order], columns[:, order], module.scaling * change)
            for index, (module, (rows, columns, _), order) in enumerate(zip(adapters, bases, orders, strict=True))
        ], left

    def _basis(self, module: LoraLinear) -> tuple[Tensor, Tensor, Tensor]:
        """Return the components of a module's update by their effect, as `basis` does."""
        live, name = module.rank, module.info.name
        outputs, inputs = self.outputs.get(name), self.inputs.get(name)
        if outputs is not None:
            outputs = outputs.cpu() / outputs.trace().clamp_min(1e-30).cpu()
        A, B = (tensor.detach().cpu().double() for tensor in (module.lora_A[:live], module.lora_B[:, :live]))
        return basis(A, B, 1.0, None if inputs is None else inputs.cpu(), outputs)


def coefficient_of_variation(totals: np.ndarray) -> float:
    """Return c, the standard deviation of the modules' effects over their mean.

    It is 0 where all modules matter alike, and about 3 where four of 36 hold nearly all: need comes in modules then.

    Args:
        totals: effect of each module, (n_modules,), not negative.
    """
    mean = totals.mean() if len(totals) else 0.0
    return float(totals.std() / mean) if mean > 0 else 0.0


def _within(
    scores: Sequence[np.ndarray], costs: Sequence[int], target: float, min_rank: int
) -> tuple[list[list[int]], int]:
    """Return which components of each module stay, those of the highest scores, and their parameters in all."""
    places = []
    for m, values in enumerate(scores):
        order = np.argsort(-values, kind="stable")
        places += [(turn >= min_rank, -values[j], turn, m, int(j)) for turn, j in enumerate(order)]
    orders: list[list[int]] = [[] for _ in costs]
    used = 0
    for _, _, _, m, component in sorted(places):
        if used + costs[m] <= target:
            orders[m].append(component)
            used += costs[m]
    return [sorted(order) for order in orders], used
