"""ElaLoRA: AdaLoRA's triplets under a constant budget; the worst of all go, the modules with the best get one more."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dynlora.engine.allocation.solvers import BUDGET_UNITS, Budget, redistribute
from dynlora.engine.context import Probe, Step
from dynlora.engine.edits import Drop, Edit, Grow, orthogonal_draw
from dynlora.engine.edits.components import RestartMoments
from dynlora.engine.loop.schedule import Phases
from dynlora.engine.model.adapters import Adapters
from dynlora.engine.model.lora_linear import LoraLinear
from dynlora.engine.model.modules import ModuleInfo, rank_limit
from dynlora.engine.model.offset_linear import (
    forget_triplets,
    orthogonality,
    take_sensitivity,
    triplet_adapter,
    triplet_importance,
    triplet_scores,
)
from dynlora.engine.randomness import stream
from dynlora.engine.strategy import Strategy, setting, state

NEWBORN = 1e-13
"""Largest E of a new triplet: b and a have norm one, and the function still stays."""


@dataclass
class ElaLora(Strategy):
    """h = W0 x + alpha / r · B(E ⊙ A x), with triplets pruned and grown at once, as many in all as at the start.

    At an event every module nominates its k lowest triplets (`per_module`, never all), scored as AdaLoRA does. Of all
    nominated, the b lowest are pruned. The modules that nominated the b highest get one more for each of them. Its row
    of A and column of B are random, orthogonal to the module's others, of norm one, and E = min(smallest |E| of the
    module, 1e-13). b falls as 1 - progress³, to one.

    Paper: Chang et al. 2025, ElaLoRA: Elastic & Learnable Low-Rank Adaptation, arXiv 2504.00254.
    Differs: b ends at one, not zero, because in a short run the last of few events would move nothing. The moments of
    all other triplets stay, and a new one's second moment is the mean of the module's others; `reset_optimizer: true`
    resets all, as published. The budget is counted in parameters: a pruned triplet of a small module does not pay for
    one of a large module. What a large one leaves over is offered to the same modules once more. `budget_unit:
    components` is as published. A module holds at most `growth_limit` uniform ranks. The phases are fractions of the
    run; the published script for RTE has a warm-up of 300 steps, an event every 50 and 500 last steps without. The
    orthogonality penalty is AdaLoRA's; we did not read the published weight.
    """

    title = "ElaLoRA"
    summary = (
        "AdaLoRA's scores, but the budget stays. At every event the least important components are pruned, and the "
        "modules whose weakest are still important get one more."
    )
    formula = r"h = W_0 x + \tfrac{\alpha}{r} B\,(E \odot A x), \quad b_t = \max(1,\, b_0\,(1 - p^3))"
    paper = "Chang et al. 2025, arXiv 2504.00254"
    fidelity = "code"
    cost = "three copies of the adapters; an orthogonality penalty each step"
    step_cost = "more"
    state_memory = "more"

    init: str = setting("gaussian", "Start of A and B: gaussian with deviation 0.02, E = 0.", choices=("gaussian",))
    exchanged: int = setting(4, "Triplets pruned and grown at the first event, b.", unit="components", ge=0)
    per_module: int = setting(2, "Triplets a module nominates at an event, k.", unit="components", ge=1)
    decay: bool = setting(True, "Whether b falls, to one until the last phase.")
    beta1: float = setting(0.85, "Smoothing of the sensitivity.", gt=0, lt=1)
    beta2: float = setting(0.85, "Smoothing of its deviation.", gt=0, lt=1)
    orth_reg_weight: float = setting(0.1, "Weight of the orthogonality penalty.", ge=0)
    budget_unit: str = setting(
        "parameters",
        "What the budget counts; components as published, their parameters may exceed uniform LoRA's.",
        choices=BUDGET_UNITS,
    )
    reset_optimizer: bool = setting(
        False, "Whether a reallocation resets all of Adam's moments, as published; off keeps those of what stays."
    )
    growth_limit: float = setting(2.0, "Largest rank of a module, in uniform ranks; at least 4 in all.", ge=1, le=64)
    warmup_steps: int | None = setting(None, "Steps before the first exchange. Empty: 12 %.", unit="steps", ge=0)
    final_steps: int | None = setting(None, "Steps after the last exchange. Empty: 30 %.", unit="steps", ge=0)
    allocate_every: int | None = setting(
        None, "Steps between events. Empty: 5 %, at least 7 unless fewer than three would fit.", unit="steps", ge=1
    )

    sensitivity: dict[str, Tensor] = state(dict)
    uncertainty: dict[str, Tensor] = state(dict)

    def check(self, total: int, rank: int) -> None:
        """Refuse a schedule without events."""
        self.phases(total)

    def phases(self, total: int) -> Phases:
        """Return when triplets are exchanged in a run of `total` steps."""
        set_apart = {name: getattr(self, name) for name in ("warmup_steps", "final_steps", "allocate_every")}
        return Phases.of(total, **set_apart, share=0.05, memory=round(1 / (1 - self.beta1)))

    def events(self, total: int, rank: int) -> list[int]:
        """Return the steps after which triplets are exchanged; none where every module has one alone."""
        return [step for step in range(1, total + 1) if self._is_event(step, total, rank)]

    def _is_event(self, step: int, total: int, rank: int) -> bool:
        """Say whether triplets are exchanged after a step."""
        return rank > 1 and self.exchanged > 0 and self.phases(total).is_event(step)

    def amount(self, step: int, total: int) -> int:
        """Return b after a step, from `exchanged` at the start of the phase to one at its end; 0 where that is 0."""
        progress = self.phases(total).progress(step) if self.decay else 0.0
        return max(min(1, self.exchanged), round(self.exchanged * (1 - progress**3)))

    def max_rank(self, module: ModuleInfo, rank: int, probe: Probe) -> int:
        """Leave room to grow."""
        return rank_limit(module, rank, probe.rank, self.growth_limit)

    def adapter(self, module: ModuleInfo, base: nn.Module, rank: int, max_rank: int, probe: Probe) -> LoraLinear:
        """Return an adapter with A, B ~ N(0, 0.02²) and a trained E = 0."""
        return triplet_adapter(module, base, rank, max_rank, scaling=self.module_scaling(probe), seed=probe.seed)

    def penalty(self, adapters: Adapters) -> dict[str, Tensor]:
        """Return weight · mean over all A and B of ‖AAᵀ - I‖_F, ‖BᵀB - I‖_F."""
        return {"orthogonality": self.orth_reg_weight * orthogonality(adapters)} if self.orth_reg_weight else {}

    def allocate(self, adapters: Adapters, step: Step) -> list[Edit]:
        """Score until the last phase, and exchange at an event."""
        if step.index <= step.total - self.phases(step.total).final_steps:
            take_sensitivity(adapters, self.sensitivity, self.uncertainty, self.beta1, self.beta2)
        if not self._is_event(step.index, step.total, adapters.reference_rank) or not self.sensitivity:
            return []
        scores = [s.tolist() for s in triplet_scores(adapters, self.sensitivity, self.uncertainty)]
        edits = self._exchanged(adapters, scores, step)
        return [*edits, RestartMoments()] if edits and self.reset_optimizer else edits

    def signals(self, adapters: Adapters) -> dict[str, Tensor]:
        """Record the triplets each module holds, and the sum of their scores as its importance."""
        device = adapters[0].lora_A.device
        signals = {"rank": torch.tensor([float(module.rank) for module in adapters], device=device)}
        if self.sensitivity:
            signals["importance"] = triplet_importance(adapters, self.sensitivity, self.uncertainty)
        return signals

    def _exchanged(self, adapters: Adapters, scores: Sequence[Sequence[float]], step: Step) -> list[Edit]:
        """Return who goes and who pays for whom; the averages follow."""
        drops, claims = exchange(scores, self.amount(step.index, step.total), self.per_module)
        going: dict[int, list[int]] = defaultdict(list)
        for drop in drops:
            going[drop.module].append(drop.component)
        columns: dict[int, Tensor] = {}
        least: dict[int, float] = {}
        for m in {m for m, _ in claims}:
            module = adapters[m]
            keep = [j for j in range(module.rank) if j not in going[m]]
            columns[m] = module.lora_B.detach()[:, keep]
            least[m] = float(module.lora_A.new_zeros(1) if module.scale is None else module.scale[keep].abs().min())

        def grow(m: int, nth: int) -> Grow:
            key = (adapters[m].info.name, "column", step.index, nth)
            draw = orthogonal_draw(columns[m].t(), stream(adapters.seed, *key))
            column = draw / draw.norm()
            columns[m] = torch.cat([columns[m], column.unsqueeze(1)], 1)
            worth = [score for claimant, score in claims if claimant == m]
            return Grow(m, worth[min(nth, len(worth) - 1)], length=1.0, column=column, scale=min(least[m], NEWBORN))

        room = [module.max_rank - module.rank + len(going[m]) for m, module in enumerate(adapters)]
        claimants = [m for m, _ in claims]
        claimants += [m for _ in range(max(room)) for m in dict.fromkeys(claimants)]  # for what the first round leaves
        able = [m for place, m in enumerate(claimants) if claimants[:place].count(m) < room[m]]
        edits = redistribute(drops, able, Budget.of(adapters, self.budget_unit), grow)
        for m, components in going.items():
            for averages in (self.sensitivity, self.uncertainty):
                forget_triplets(adapters[m], averages, components)
        return edits


def exchange(
    scores: Sequence[Sequence[float]], amount: int, per_module: int
) -> tuple[list[Drop], list[tuple[int, float]]]:
    """Return the triplets that go, lowest first, and the modules that get one with what it was got for, highest first.

    Args:
        scores: of every triplet, by module.
        amount: triplets that go, b; at most half of what is put up.
        per_module: lowest triplets that a module puts up, k; one always stays out.
    """
    up = [
        (score, m, j)
        for m, own in enumerate(scores)
        for score, j in sorted(zip(own, range(len(own)), strict=True))[: min(per_module, len(own) - 1)]
    ]
    up.sort()
    amount = min(amount, len(up) // 2)
    drops = [Drop(m, j, score) for score, m, j in up[:amount]]
    return drops, [(m, score) for score, m, _ in up[::-1][:amount]]
