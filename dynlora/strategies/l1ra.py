"""L1RA: a factor on every component under an L1 penalty; ranks whose factor is zero go where all factors are large."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dynlora.engine.allocation.solvers import BUDGET_UNITS, Budget, redistribute
from dynlora.engine.context import Probe, Step
from dynlora.engine.edits import Drop, Edit, Grow
from dynlora.engine.edits.components import RestartMoments, ShrinkScales, shrunk
from dynlora.engine.model.adapters import Adapters
from dynlora.engine.model.lora_linear import LoraLinear
from dynlora.engine.model.modules import ModuleInfo, rank_limit
from dynlora.engine.randomness import stream
from dynlora.engine.strategy import OwnSignal, Strategy, own_group, setting

ZERO = 1e-10
"""Below it a factor counts as zero."""

USUAL_RATE, LEAST_WAY = 2e-2, 10.0
"""Published rate of the factors; and the least product of rate and steps: factors must be able to reach zero."""

USUAL_PULL, LEAST_PULL = 1e-3, 1.0
"""Published λ; and the least product of λ and steps."""


@dataclass
class L1ra(Strategy):
    """h = W0 x + alpha / r · B(c ⊙ A x), c in [0, 1], with c ← clamp(c - η_c λ, 0, 1) after every step of Adam.

    The factors c start at one and have a constant learning rate η_c of their own. Every tenth of the run, components
    whose factor is below 1e-10 are dropped (one stays in each module). What they free is given to the modules in the
    order of their smallest factor, the largest first, but not to those that just lost some. A new component has a ~
    N(0, 1/r²), b = 0 and c = 1, so that the function does not change.

    Paper: Singh et al. 2025, L1RA: Dynamic Rank Assignment in LoRA Fine-Tuning, arXiv 2509.04884.
    Differs: the moments of all other components stay; `reset_optimizer: true` resets them, as the published code does.
    The budget is counted in parameters; `budget_unit: components` is as published. c is clamped after the step instead
    of in the forward pass, so that a factor at zero gets its gradient. In runs of fewer than 500 steps η_c is raised to
    10 / T, of fewer than 1,000 λ to 1 / T, because factors would hardly reach zero. A module holds at most
    `growth_limit` uniform ranks. The factors are not counted, because they fold into B.
    """

    title = "L1RA"
    summary = (
        "Every component has a factor between zero and one that an L1 penalty reduces. Components whose factor reaches "
        "zero are given to the modules that use all of theirs."
    )
    formula = (
        r"h = W_0 x + \tfrac{\alpha}{r} B\,(c \odot A x), \quad c \leftarrow \mathrm{clamp}(c - \eta_c\lambda, 0, 1)"
    )
    paper = "Singh et al. 2025, arXiv 2509.04884"
    fidelity = "code"
    as_lora = {"c_lr": 0.0}
    cost = "one number per component; one shrinkage per step"
    step_cost = "more"
    state_memory = "more"
    own_signals = {"least_factor": OwnSignal("smallest factor", "Which modules are next to lose a component")}

    c_lr: float | None = setting(
        None, "Constant learning rate η_c of the factors; 0 holds them. Empty: 0.02, at least 10 / T.", ge=0, le=1
    )
    l1: float | None = setting(
        None, "Decoupled L1 penalty λ: a step reduces every factor by η_c · λ. Empty: 0.001, at least 1 / T.", ge=0
    )
    event_share: float = setting(0.1, "Fraction of the steps between events.", gt=0, le=0.5)
    budget_unit: str = setting(
        "parameters",
        "What the budget counts; components as published, their parameters may exceed uniform LoRA's.",
        choices=BUDGET_UNITS,
    )
    reset_optimizer: bool = setting(
        False, "Whether a reallocation resets all of Adam's moments, as published; off keeps those of what stays."
    )
    growth_limit: float = setting(2.0, "Largest rank of a module, in uniform ranks; at least 4 in all.", ge=1, le=64)

    def rate(self, total: int) -> float:
        """Return the factors' learning rate in a run of `total` steps."""
        return min(1.0, max(USUAL_RATE, LEAST_WAY / max(1, total))) if self.c_lr is None else self.c_lr

    def pull(self, total: int) -> float:
        """Return what the L1 penalty takes off every factor at each of `total` steps, η_c · λ."""
        weight = max(USUAL_PULL, LEAST_PULL / max(1, total)) if self.l1 is None else self.l1
        return self.rate(total) * weight

    def events(self, total: int, rank: int) -> list[int]:
        """Return the steps after which ranks are handed on."""
        return [step for step in range(1, total) if self._is_event(step, total)]

    def _is_event(self, step: int, total: int) -> bool:
        """Say whether ranks are handed on after a step; the last one comes too late."""
        return self.rate(total) > 0 and step < total and step % max(1, round(self.event_share * total)) == 0

    def max_rank(self, module: ModuleInfo, rank: int, probe: Probe) -> int:
        """Leave room to grow."""
        return rank_limit(module, rank, probe.rank, self.growth_limit) if self.c_lr != 0 else rank

    def adapter(self, module: ModuleInfo, base: nn.Module, rank: int, max_rank: int, probe: Probe) -> LoraLinear:
        """Return an adapter with trained factors of one, its scale."""
        adapter = super().adapter(module, base, rank, max_rank, probe)
        adapter.use_scale(1.0, trainable=True)
        if adapter.scale is not None:
            with torch.no_grad():
                adapter.scale[rank:].zero_()
        return adapter

    def groups(self, adapters: Adapters) -> list[dict[str, Any]]:
        """Return the factors as a group of their own: constant rate, no weight decay."""
        factors = [module.scale for module in adapters if module.scale is not None]
        how = {"peak_lr": self.rate(adapters.total), "constant": True, "weight_decay": 0.0}
        return own_group(super().groups(adapters), factors, **how)

    def allocate(self, adapters: Adapters, step: Step) -> list[Edit]:
        """Shrink the factors; at an event, hand on the ranks whose factor is zero."""
        pull = self.pull(step.total)
        edits: list[Edit] = [ShrinkScales(pull, limits=(0.0, 1.0))] if self.rate(step.total) > 0 else []
        if not self._is_event(step.index, step.total):
            return edits
        factors = [shrunk(c, pull).clamp(0, 1).tolist() for c in self._factors(adapters)]
        moves = self._handed_on(adapters, factors, step)
        return [*edits, *moves, *([RestartMoments()] if moves and self.reset_optimizer else [])]

    def finish(self, adapters: Adapters) -> list[Edit]:
        """Take the components off whose factor is zero; the function stays as it is."""
        return [Drop(m, j, 0.0) for m, module in enumerate(adapters) for j in module.idle()]

    def signals(self, adapters: Adapters) -> dict[str, Tensor]:
        """Record the components each module holds, and its smallest factor."""
        factors = self._factors(adapters)
        least = torch.stack([c.min() if len(c) else c.new_zeros(()) for c in factors])
        return {"rank": least.new_tensor([module.rank for module in adapters]), "least_factor": least}

    def scalars(self, adapters: Adapters) -> dict[str, float | Tensor]:
        """Record the mean of all factors, and the fraction of them that is zero."""
        factors = torch.cat(self._factors(adapters))
        return {"mean_factor": factors.mean(), "zero_factors": (factors < ZERO).float().mean()}

    def _factors(self, adapters: Adapters) -> list[Tensor]:
        """Return c of the components each module holds, (rank,)."""
        return [m.lora_A.new_ones(m.rank) if m.scale is None else m.scale.detach()[: m.rank] for m in adapters]

    def _handed_on(self, adapters: Adapters, factors: Sequence[Sequence[float]], step: Step) -> list[Edit]:
        """Return who loses its zero factors to whom: round robin, in the order of the smallest factor."""
        drops: list[Drop] = []
        for m, c in enumerate(factors):
            least_first = sorted(range(len(c)), key=c.__getitem__)
            drops += [Drop(m, j, c[j]) for j in least_first[: len(c) - 1] if c[j] < ZERO]
        if not drops:
            return []
        gave = {drop.module for drop in drops}
        room = [module.max_rank - module.rank for module in adapters]
        able = [m for m, c in enumerate(factors) if m not in gave and room[m] > 0 and len(c)]
        order = sorted(able, key=lambda m: -min(factors[m]))
        claims = [m for turn in range(max(room)) for m in order if turn < room[m]]

        def grow(m: int, nth: int) -> Grow:
            module = adapters[m]
            draw = torch.randn(
                module.info.d_in, generator=stream(adapters.seed, module.info.name, "l1ra", step.index, nth)
            )
            row = draw / adapters.reference_rank
            return Grow(m, min(factors[m]), direction=row, length=float(row.norm()), scale=1.0)

        return redistribute(drops, claims, Budget.of(adapters, self.budget_unit), grow)
