"""AdaLoRA: SVD-form updates whose singular values are pruned to a falling budget."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dynlora.engine.context import Probe, Step
from dynlora.engine.edits import Drop, Edit, SetScale
from dynlora.engine.edits.components import MaskScales
from dynlora.engine.loop.schedule import Phases
from dynlora.engine.model.adapters import Adapters
from dynlora.engine.model.lora_linear import LoraLinear
from dynlora.engine.model.modules import ModuleInfo
from dynlora.engine.model.offset_linear import (
    forget_triplets,
    orthogonality,
    take_sensitivity,
    triplet_adapter,
    triplet_importance,
    triplet_scores,
)
from dynlora.engine.strategy import Strategy, setting, state
from dynlora.errors import ConfigError

EPSILON = 1e-5
"""Added to the divisor of the scaling, as the published code does."""


@dataclass
class AdaLora(Strategy):
    """h = W0 x + alpha / (init_r + 1e-5) · B(E ⊙ A x), with E pruned from init_r to the budget's rank.

    Sensitivity |w ⊙ ∂L/∂w| of every entry of A, B and E is smoothed (beta1) and multiplied by its smoothed deviation
    (beta2). A triplet's score is that of E plus the means over its row of A and column of B. At an event the lowest are
    set to zero. Until the last phase they may return.

    Paper: Zhang et al. 2023, AdaLoRA, ICLR, arXiv 2303.10512 (equations 5 to 12).
    Differs: not from PEFT's code, step by step. Around it, the default schedule follows the run's length. Equal scores
    prune as many as requested, where PEFT prunes all of them. Masked triplets are removed after the last step. The
    final budget is that of uniform LoRA, counted in triplets as published, or all there are where narrow modules start
    with fewer. Before that it is exceeded by design.
    """

    title = "AdaLoRA"
    summary = (
        "Starts with half as many components again as the budget allows, as a singular value decomposition. Prunes the "
        "least sensitive ones while training."
    )
    formula = r"h = W_0 x + \tfrac{\alpha}{r_0} B\,(E \odot A x), \quad s = \bar I \cdot \bar U"
    paper = "Zhang et al. 2023, arXiv 2303.10512"
    fidelity = "code"
    budget_in = "components"
    cost = "three copies of the adapters; an orthogonality penalty each step"
    step_cost = "more"
    state_memory = "more"

    init: str = setting("gaussian", "Start of A and B: gaussian with deviation 0.02, E = 0.", choices=("gaussian",))
    init_r: int | None = setting(None, "Rank at the start. Empty: 1.5 × adapter.rank.", unit="components", ge=1)
    beta1: float = setting(0.85, "Smoothing of the sensitivity.", gt=0, lt=1)
    beta2: float = setting(0.85, "Smoothing of its deviation.", gt=0, lt=1)
    orth_reg_weight: float = setting(0.5, "Weight of the orthogonality penalty.", ge=0)
    warmup_steps: int | None = setting(None, "Steps before pruning (tinit). Empty: 12 %.", unit="steps", ge=0)
    final_steps: int | None = setting(None, "Steps after pruning (tfinal). Empty: 30 %.", unit="steps", ge=0)
    allocate_every: int | None = setting(None, "Steps between prunings (deltaT). Empty: 2 %.", unit="steps", ge=1)

    sensitivity: dict[str, Tensor] = state(dict)
    uncertainty: dict[str, Tensor] = state(dict)
    pattern: list[list[bool]] = state(list)
    keep: Tensor | None = state(lambda: None)
    pruned_at: dict[str, Tensor | float] = state(dict)

    def check(self, total: int, rank: int) -> None:
        """Refuse a start below the target, and a schedule without a pruning phase."""
        if self.init_r is not None and self.init_r < rank:
            raise ConfigError(f"strategy.init_r={self.init_r}: must be at least adapter.rank={rank}; raise it")
        self.phases(total)

    def phases(self, total: int) -> Phases:
        """Return when triplets are pruned in a run of `total` steps."""
        return Phases.of(
            total,
            warmup_steps=self.warmup_steps,
            final_steps=self.final_steps,
            allocate_every=self.allocate_every,
            memory=1,
        )

    def events(self, total: int, rank: int) -> list[int]:
        """Return the steps after which triplets are pruned: multiples of deltaT, and the end of the phase."""
        return [step for step in range(1, total + 1) if self._prunes(step, self.phases(total))]

    def start_rank(self, rank: int) -> int:
        """Return the rank at the start."""
        return self.init_r or round(1.5 * rank)

    def ranks(self, modules: Sequence[ModuleInfo], probe: Probe) -> list[int]:
        """Start every module at the same, larger rank."""
        return [min(self.start_rank(probe.rank), info.d_in, info.d_out) for info in modules]

    def adapter(self, module: ModuleInfo, base: nn.Module, rank: int, max_rank: int, probe: Probe) -> LoraLinear:
        """Return an adapter with A, B ~ N(0, 0.02²) and a trained E = 0."""
        divisor = self.start_rank(probe.rank) + EPSILON
        scaling = probe.lora_alpha / (divisor if self.scaling == "standard" else divisor**0.5)
        return triplet_adapter(module, base, rank, max_rank, scaling=scaling, seed=probe.seed)

    def start(self, adapters: Adapters) -> None:
        """Begin the averages; every triplet counts."""
        self.pattern = [[True] * module.rank for module in adapters]

    def penalty(self, adapters: Adapters) -> dict[str, Tensor]:
        """Return weight · mean over all A and B of ‖AAᵀ - I‖_F, ‖BᵀB - I‖_F."""
        if self.orth_reg_weight == 0:
            return {}
        return {"orthogonality": self.orth_reg_weight * orthogonality(adapters)}

    def allocate(self, adapters: Adapters, step: Step) -> list[Edit]:
        """Score with the moved weights and the gradients before them, as PEFT does, and prune at an event."""
        phases = self.phases(step.total)
        end = step.total - phases.final_steps
        if step.index < end:
            take_sensitivity(adapters, self.sensitivity, self.uncertainty, self.beta1, self.beta2)
        if step.index > end:
            return [] if self.keep is None else [MaskScales(self.keep)]
        if not self._prunes(step.index, phases):
            return []
        self._prune(adapters, phases, step.index)
        return self._mask(adapters)

    def finish(self, adapters: Adapters) -> list[Edit]:
        """Take the masked triplets off; they no longer reach the output."""
        for module, pattern in zip(adapters, self.pattern, strict=True):
            masked = [j for j, keep in enumerate(pattern) if not keep]
            for averages in (self.sensitivity, self.uncertainty):
                forget_triplets(module, averages, masked)
        return [Drop(m, j, 0.0) for m, pattern in enumerate(self.pattern) for j, keep in enumerate(pattern) if not keep]

    def signals(self, adapters: Adapters) -> dict[str, Tensor]:
        """Record the rank of the last pruning, and the sum of each module's triplet scores as its importance."""
        signals = {"rank": torch.tensor([float(sum(pattern)) for pattern in self.pattern])}
        if self.sensitivity:
            signals["importance"] = triplet_importance(adapters, self.sensitivity, self.uncertainty)
        return signals

    def scalars(self, adapters: Adapters) -> dict[str, float | Tensor]:
        """Record the triplets that the last pruning allowed, and the highest score that went."""
        return self.pruned_at

    def budget(self, step: int, phases: Phases, first: int, last: int) -> int:
        """Return the triplets allowed after a step: a cubic fall from `first` to `last` (eq. 12)."""
        if step <= phases.warmup_steps:
            return first
        if step > phases.total - phases.final_steps:
            return last
        left = 1 - (step - phases.warmup_steps) / (phases.total - phases.final_steps - phases.warmup_steps)
        return int((first - last) * left**3 + last)

    def _prunes(self, step: int, phases: Phases) -> bool:
        """Say whether triplets are pruned after a step; PEFT counts deltaT from step 0."""
        end = phases.total - phases.final_steps
        return step == end or (phases.warmup_steps < step < end and step % phases.allocate_every == 0)

    def _prune(self, adapters: Adapters, phases: Phases, step: int) -> None:
        """Keep the highest scores that the budget allows, over all modules."""
        if not self.sensitivity:
            return
        scores = torch.cat(triplet_scores(adapters, self.sensitivity, self.uncertainty))
        last = min(adapters.reference_rank * len(adapters), len(scores))  # narrow modules may start with fewer
        n_pruned = len(scores) - self.budget(step, phases, len(scores), last)
        keep = torch.ones(len(scores), dtype=torch.bool, device=scores.device)
        order = torch.argsort(scores, stable=True)
        keep[order[:n_pruned]] = False
        self.pruned_at = {"budget": float(len(scores) - n_pruned), "threshold": scores[order[max(0, n_pruned - 1)]]}
        self.pattern = [part.tolist() for part in keep.split([module.rank for module in adapters])]
        self.keep = keep.to(scores.dtype) if n_pruned else None

    def _mask(self, adapters: Adapters) -> list[Edit]:
        """Return edits that set the pruned entries of E to zero."""
        edits: list[Edit] = []
        for m, (module, pattern) in enumerate(zip(adapters, self.pattern, strict=True)):
            if module.scale is not None and not all(pattern):
                values = torch.where(torch.tensor(pattern, device=module.scale.device), module.scale.detach(), 0.0)
                edits.append(SetScale(m, tuple(values.tolist())))
        return edits
