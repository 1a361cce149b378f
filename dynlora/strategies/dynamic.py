"""Dynamic LoRA: importance is measured while training, and rank goes where it matters, at one budget of parameters.

Wide, then cut: every module learns with more components than the budget holds; the trained update says which stay.
Gradients at the start say little about where rank is needed: other modules can compensate at first. What was learned
says it, and more where a module had room to learn. So all modules begin with `explore` times the uniform rank, and
three cuts lead to the budget, each by what the components of the trained update do to the loss.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from dynlora.engine.allocation import scores
from dynlora.engine.allocation.solvers import allocation_state_of, drawn, swap, trimmed_ranks, weighted
from dynlora.engine.compress.components import basis
from dynlora.engine.context import Probe, Step
from dynlora.engine.edits import Edit
from dynlora.engine.edits.components import Recompose
from dynlora.engine.loop.schedule import Phases
from dynlora.engine.model.adapters import Adapters
from dynlora.engine.model.gates import MODES, gate_numbers
from dynlora.engine.model.lora_linear import LoraLinear
from dynlora.engine.model.modules import ModuleInfo, rank_limit
from dynlora.engine.randomness import stream_seed
from dynlora.engine.strategy import Strategy, setting, state
from dynlora.errors import ConfigError

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


SMOOTHING = 0.85
"""Fraction of the old average of importance that is kept at each step."""

MEAN_SIZE, AGE, NOW = "worth", "age", "now"
"""Names under which the averages are tracked; checkpoints hold them, so they outlive names in the code."""


@dataclass(frozen=True)
class Importance:
    """The importance of components: the mean over steps of |s_j|, with s_j = ⟨b_j, ∂L/∂b_j⟩ of one step.

    Attributes:
        smoothing: fraction of the old average that is kept at each step.
    """

    smoothing: float = SMOOTHING

    def start(self, adapters: Adapters) -> None:
        """Begin the averages."""
        for name in (MEAN_SIZE, AGE, NOW):
            adapters.track(name)

    def observe(self, adapters: Adapters) -> None:
        """Take the gradients of this step into the averages."""
        now = scores.signed_saliency(adapters.modules, adapters.track(NOW))
        adapters.track(MEAN_SIZE).lerp_(now.abs_(), 1 - self.smoothing)
        adapters.track(AGE).add_(1)

    def of(self, adapters: Adapters) -> Tensor:
        """Return each component's importance, (n_modules, widest max_rank), zero where inactive."""
        correction = 1 - self.smoothing ** adapters.track(AGE).clamp_min(1)
        return adapters.track(MEAN_SIZE) / correction


MOVING, WEIGHING, CUTTING = ("rank", "both", "random"), ("scalar", "both"), ("rank", "random")

WIDER, ROOM = 4, 8
"""Rank at the start over the uniform rank, and its least, where `explore` is empty."""

MOVES_PER_MODULE = 2
"""Components that one module gives or receives at a reallocation after the first, at most."""

GATE_LR_RATIO = 10.0
"""Learning rate of gates that see the input over that of A, where `scale_lr_ratio` is empty."""

HYSTERESIS = 0.1
"""Fraction by which a move's benefit must exceed what its donors lose."""


@dataclass
class Dynamic(Strategy):
    """h = W0 x + s · g · B(e ⊙ A x) with ranks that move between modules under one budget of parameters.

    Every module starts with more components than the budget holds. Three cuts lead to the budget by half the run, each
    by what the components of the trained update do to the loss, per parameter (see `explore`). With `explore=1` ranks
    start uniform, and the least important components pay for new ones where rank helps most: I_j = |⟨b_j, ∂L/∂b_j⟩|,
    the first-order change of the loss when component j goes, averaged over steps after the absolute value. Growth
    keeps the function (b = 0). s is alpha / r, from the last cut on (see `own_scaling`). g is one learned factor per
    module; other modes of `gates` react to the input.

    Paper: Liao et al. 2025, arXiv 2501.14859, its abstract: importance, reallocation, a strategy on input features.
    Differs: importance formula, schedule and gate are a reconstruction. The default factor does not see the input:
    gates that do were not significantly different. Where the need is known, rank goes there
    (docs/research/allocation.md); on real tasks it is not significantly different from uniform LoRA whose head has a
    rate of its own (docs/RESULTS.md).
    """

    title = "Dynamic LoRA"
    summary = (
        "Starts with more components than the budget holds, in every module. Three cuts in the first half of the run "
        "leave those of the trained update that change the loss most per parameter. One learned factor scales the "
        "update of each module, or a gate that sees the input (gates=module). Never more parameters than uniform LoRA "
        "in the second half."
    )
    formula = r"h = W_0 x + s\,g\,B A x,\; I = \mathrm{tr}(L R) / \mathrm{tr}\,L"
    paper = "Liao et al. 2025, arXiv 2501.14859"
    fidelity = "reconstruction"
    as_lora = {"allocation": "none", "gates": "off"}
    cost = "up to 8 times the adapter's parameters until half the run; gates are paid from the budget"
    step_cost = "more"
    state_memory = "more"
    resizes = True

    allocation: str = setting(
        "rank",
        "What is reallocated: rank; scalar: one weight per module; both; random: the control; none.",
        choices=("rank", "scalar", "both", "random", "none"),
    )
    allocation_seed: int = setting(
        0, "Seed of the random control, beside the run's own; change it to draw another random allocation.", ge=0
    )
    gates: str = setting(
        "scale",
        "What scales the update: one learned factor per module, blind to the input (scale); input gates, one per "
        "module and sequence (module), per component (rank) or per token (token); or nothing (off).",
        choices=("off", "scale", *MODES),
    )
    scale_lr_ratio: float | None = setting(
        None,
        "Learning rate of gates and learned scales over that of A; 0 keeps them at one. Empty: 10 for gates that see "
        "the input, 1 for learned scales.",
        ge=0,
        le=1024,
    )
    explore: float | None = setting(
        None,
        "Rank at the start, in multiples of the uniform rank: so many times the budget's parameters are held until "
        "three cuts lead to it by half the run, and what was learned says which components stay. 1: start uniform, "
        "and components move within the budget. Empty: 4, and at least 8 components; 1 where another setting needs "
        "it.",
        ge=1,
        le=16,
    )
    moves: int | None = setting(
        None, "Components moved per reallocation at first, falling later; empty: 3 % of all.", unit="components", ge=0
    )
    min_rank: int | None = setting(
        None,
        "Minimum rank of every module; empty: 1, but at adapter.rank=1, where no rank could move otherwise, only "
        "while modules matter about alike. 0 lets modules go.",
        unit="components",
        ge=0,
    )
    budget_share: float = setting(1.0, "Fraction of uniform LoRA's parameters that may be used.", gt=0, le=1)
    growth_limit: float = setting(
        2.0, "Largest rank of a module, in multiples of the uniform rank; at least 4 components.", ge=1, le=64
    )
    warmup_steps: int | None = setting(
        None, "Steps before the first reallocation; empty: 12 % of the run.", unit="steps", ge=0
    )
    final_steps: int | None = setting(
        None, "Steps after the last reallocation; empty: 30 % of the run.", unit="steps", ge=0
    )
    allocate_every: int | None = setting(
        None, "Steps between reallocations; empty: 5 % of the run, at least 7 where three fit.", unit="steps", ge=1
    )

    exploration: Exploration = state(Exploration)
    excess: float = state(lambda: 1.0)

    def check(self, total: int, rank: int) -> None:
        """Refuse a schedule without reallocations, and a minimum rank above the uniform rank."""
        self.phases(total)
        if self.least(rank) > rank:
            raise ConfigError(f"strategy.min_rank={self.min_rank}: must not exceed adapter.rank={rank}; lower it")
        if self.explore is not None and self.explore > 1 and (reason := self._within_budget()):
            name, why = reason
            raise ConfigError(
                f"strategy.{name}={getattr(self, name)}: {why}; drop it, or set strategy.explore=1, not "
                f"{self.explore:g}"
            )

    def _within_budget(self) -> tuple[str, str] | None:
        """Return the setting that has no meaning where training starts wide, and why; None where all have."""
        if self.allocation not in CUTTING:
            return "allocation", "weighs or moves nothing where training starts wide"
        if self.gates == "rank":
            return "gates", "components are combined at the cuts, and such a gate belongs to one"
        schedule = ("warmup_steps", "final_steps", "allocate_every", "moves")
        given = [name for name in schedule if getattr(self, name) is not None]
        return (given[0], "the cuts of a wide start have steps of their own") if given else None

    def start_rank(self, uniform: int) -> int:
        """Return the rank of every module at the start, beside a uniform rank."""
        if self.explore is not None:
            return round(self.explore * uniform)
        return uniform if self._within_budget() else max(WIDER * uniform, ROOM)

    def phases(self, total: int) -> Phases:
        """Return when capacity may move in a run of `total` steps."""
        set_apart = {name: getattr(self, name) for name in ("warmup_steps", "final_steps", "allocate_every")}
        return Phases.of(total, **set_apart, share=0.05, memory=round(1 / (1 - SMOOTHING)))

    def events(self, total: int, rank: int) -> list[int]:
        """Return the steps after which capacity may move."""
        if self._explores(rank):
            return cut_steps(total)
        return self.phases(total).events() if self._moves_rank(rank) or self.allocation in WEIGHING else []

    def budget_holds_from(self, total: int, rank: int) -> int:
        """Return the step of the last cut, where training starts wider than the budget."""
        return cut_steps(total)[-1] if self._explores(rank) else 0

    def _explores(self, uniform: int) -> bool:
        """Say whether training starts wider than the budget."""
        return self.start_rank(uniform) > uniform and self._moves_rank(uniform)

    def own_scaling(self, rank: int, probe: Probe) -> float:
        """Return s, over the square of what exceeds the budget; `adapter` makes the factors as much larger."""
        return super().own_scaling(rank, probe) / self.excess**2

    def adapter(self, module: ModuleInfo, base: nn.Module, rank: int, max_rank: int, probe: Probe) -> LoraLinear:
        """Return the adapter; over the budget its factors are larger, so that more components learn as much together.

        Adam moves every entry by the rate. With A and B times f and s over f², their product moves as at the rate over
        f; f is parameters over budget, until a cut sets it back.
        """
        adapter = super().adapter(module, base, rank, max_rank, probe)
        with torch.no_grad():
            adapter.lora_A.mul_(self.excess)
        return adapter

    def _moves_rank(self, uniform: int) -> bool:
        """Say whether rank moves at all: not where every module keeps its uniform rank."""
        return self.allocation in MOVING and self.least(uniform) < uniform

    def least(self, uniform: int) -> int:
        """Return the minimum rank of every module, beside a uniform rank."""
        return min(1, max(0, uniform - 1)) if self.min_rank is None else self.min_rank

    def _has_room(self, adapters: Adapters) -> bool:
        """Say whether rank moves in these adapters: those of earlier versions have no room for it at rank 1."""
        rank = adapters.reference_rank
        return self._moves_rank(rank) and any(module.max_rank > rank for module in adapters)

    def gate_mode(self) -> str | None:
        """Return how the adapters react to the input."""
        return self.gates if self.gates in MODES else None

    def learns_scale(self) -> bool:
        """Say whether each module learns a scale in the place of a gate."""
        return self.gates == "scale"

    def scale_rate(self) -> float:
        """Return `scale_lr_ratio`; empty: what gates need to gain from the input (docs/research/gates.md), else 1."""
        if self.scale_lr_ratio is None:
            return 1.0 if self.gate_mode() is None else GATE_LR_RATIO
        return self.scale_lr_ratio

    def parameter_budget(self, uniform: int) -> int:
        """Return the fraction of uniform LoRA's parameters that may be used."""
        return int(self.budget_share * uniform)

    def ranks(self, modules: Sequence[ModuleInfo], probe: Probe) -> list[int]:
        """Start uniform, a few components short where gates have to be paid from the same budget."""
        if self._explores(probe.rank):
            ranks = [min(self.start_rank(probe.rank), info.d_in, info.d_out) for info in modules]
            wide = sum(rank * info.cost for rank, info in zip(ranks, modules, strict=True))
            self.excess = max(1.0, wide / probe.budget)
            return ranks
        gate = int(self.learns_scale()) or gate_numbers(self.gate_mode())
        own, shared = (gate, 0) if self.gates == "rank" else (0, gate * len(modules))
        return trimmed_ranks(probe.rank, [info.cost + own for info in modules], probe.budget - shared)

    def max_rank(self, module: ModuleInfo, rank: int, probe: Probe) -> int:
        """Leave spare components where ranks move."""
        if self._explores(probe.rank):
            return rank
        return rank_limit(module, rank, probe.rank, self.growth_limit) if self._moves_rank(probe.rank) else rank

    def start(self, adapters: Adapters) -> None:
        """Begin the averages."""
        self.importance.start(adapters)

    def observe(self, adapters: Adapters, step: Step) -> None:
        """Read importance off the gradients."""
        measure = self.exploration if self._explores(adapters.reference_rank) else self.importance
        measure.observe(adapters)

    def allocate(self, adapters: Adapters, step: Step) -> list[Edit]:
        """Move capacity at a reallocation step."""
        if self._explores(adapters.reference_rank):
            return self._cut(adapters, step)
        phases = self.phases(step.total)
        if not phases.is_event(step.index):
            return []
        edits: list[Edit] = []
        importance = self.importance.of(adapters).double().cpu().numpy()
        if self._has_room(adapters):
            edits += self._moves(adapters, importance, step)
        if self.allocation in WEIGHING:
            edits += weighted(adapters, importance.sum(1))
        return edits

    def signals(self, adapters: Adapters) -> dict[str, np.ndarray | Tensor]:
        """Record each module's importance, the sum of that of its components, by which rank is allocated."""
        if self._explores(adapters.reference_rank):
            return {"importance": self.exploration.importance(adapters)}
        return {"importance": self.importance.of(adapters).sum(1)}

    @property
    def importance(self) -> Importance:
        """How the importance of components is measured."""
        return Importance()

    def _cut(self, adapters: Adapters, step: Step) -> list[Edit]:
        """Return the edits of a cut: each leaves the same fraction of what the one before did, the last the budget."""
        steps = cut_steps(step.total)
        if step.index not in steps:
            return []
        left = len(steps) - 1 - steps.index(step.index)
        target = adapters.spendable * self.excess ** (left / (left + 1))
        least, draw = self.least(adapters.reference_rank) or self.min_rank, None
        if self.allocation == "random":
            seed = stream_seed(adapters.seed, "random allocation", self.allocation_seed, step.index)
            draw = np.random.default_rng(seed)
        edits, self.excess = self.exploration.cut(adapters, target, self.excess, min_rank=least, draw=draw)
        return edits

    def _moves(self, adapters: Adapters, importance: np.ndarray, step: Step) -> list[Edit]:
        """Return the moves of one reallocation: at most b0 · (1 - progress³) components, at least one."""
        phases = self.phases(step.total)
        first = max(1, round(0.03 * adapters.reference_rank * len(adapters))) if self.moves is None else self.moves
        moves = max(min(1, first), round(first * (1 - phases.progress(step.index) ** 3)))
        fresh = min(2 * phases.allocate_every, step.index)  # those of the start are never fresh
        state = allocation_state_of(adapters, importance, fresh=fresh, min_rank=self.least(adapters.reference_rank))
        if self.allocation == "random":
            state = drawn(state, adapters.seed, "random allocation", self.allocation_seed, step.index)
        return list(swap(state, moves=moves, per_module=MOVES_PER_MODULE, hysteresis=HYSTERESIS))
