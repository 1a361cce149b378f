"""Dynamic LoRA: importance is measured while training, and rank moves to where it matters, under a fixed budget."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from dynlora.engine.allocation.solvers import drawn, standing_of, swap, target_ranks, toward, weighted
from dynlora.engine.context import Probe, Step
from dynlora.engine.edits import Edit
from dynlora.engine.loop.schedule import Phases
from dynlora.engine.model.adapters import Adapters
from dynlora.engine.model.gates import MODES
from dynlora.engine.model.modules import ModuleInfo, room_to_grow
from dynlora.engine.strategy import Strategy, setting, state
from dynlora.errors import ConfigError
from dynlora.strategies.dynamic.gradient_accumulation import Listening
from dynlora.strategies.dynamic.growth_probes import ProbeRota
from dynlora.strategies.dynamic.importance import SCORES, Worth
from dynlora.strategies.dynamic.initial_ranks import FIRST_RANKS, first_ranks
from dynlora.strategies.dynamic.one_shot import PROMISES, commitment

MOVING, WEIGHING = ("rank", "both", "random"), ("scalar", "both")


@dataclass
class Dynamic(Strategy):
    """h = W0 x + s · B(e ⊙ g(φ) ⊙ A x) with ranks that move between modules under one budget of parameters.

    It starts as uniform LoRA. The first event sets all ranks at once, by what the leading directions of each frozen
    weight's gradient promise per parameter. Then the components worth least pay for those where one more is worth most:
    I_j = |⟨b_j, ∂L/∂b_j⟩|, the first-order change of the loss when component j goes, averaged over steps after the
    absolute value. Growth keeps the function (b = 0); s = alpha / r never changes.

    Paper: Liao et al. 2025, arXiv 2501.14859, its abstract: importance, reallocation, a strategy on input features.
    Differs: importance formula, solver, schedule and gate are a reconstruction.
    """

    title = "Dynamic LoRA"
    summary = (
        "Starts as uniform LoRA, hears which weights the loss pulls at and gives them the rank; then moves it from "
        "where the loss hangs on it least. A gate reacts to each input. Never more parameters than uniform LoRA."
    )
    formula = r"h = W_0 x + s\,B(e \odot g(\varphi) \odot A x),\; I_j = |\langle b_j, \partial L/\partial b_j\rangle|"
    paper = "Liao et al. 2025, arXiv 2501.14859"
    fidelity = "reconstruction"
    as_lora = {"allocation": "none", "gates": "off"}
    cost = "a dot product a component and step; 8 steps of listening; gates from the budget"

    allocation: str = setting(
        "rank", "What moves: rank; scalar (a weight a module); both; random (the control: by lot); none.",
        choices=("rank", "scalar", "both", "random", "none"),
    )  # fmt: skip
    lot: int = setting(0, "Which lot is drawn where allocation=random; another one at the same seed.", ge=0)
    gates: str = setting(
        "module", "One gate a module and sequence; rank: a component; token: a token.", choices=("off", *MODES)
    )
    first_ranks: str = setting(
        "uniform", "Ranks at the start: uniform, or by inputs' variance or gradients' promise.", choices=FIRST_RANKS
    )
    score: str = setting(
        "saliency", "|⟨b, ∂L/∂b⟩|; signal: sign kept; uncertain: × its spread; magnitude: ‖b‖·‖a‖.", choices=SCORES
    )
    solver: str = setting(
        "swap", "swap: cheapest out, dearest in; softmax: toward ranks in proportion to importance.",
        choices=("swap", "softmax"),
    )  # fmt: skip
    growth: str = setting(
        "weakest", "Worth of one more component: that of the weakest, of a probe row, or what the gradient promises.",
        choices=("weakest", "probe", "gradient"),
    )  # fmt: skip
    commit: bool = setting(True, "Whether the first event sets all ranks anew, by what the gradients promise.")
    promises: str = setting("model", "First event: promises compete in the whole model, or a layer.", choices=PROMISES)
    rows: str = setting("random", "Where new rows of A point at the first event.", choices=("random", "gradient"))
    smoothing: float = setting(0.85, "Share of the old average that stays at each step.", unit="per step", ge=0, lt=1)
    hysteresis: float = setting(0.1, "Share by which the benefit of a move must exceed its loss.", ge=0, le=100)
    moves: int | None = setting(None, "Most components an event moves, falling. Empty: 3 %.", unit="components", ge=0)
    moves_per_module: int = setting(2, "Components one module gives or gets in an event.", unit="components", ge=1)
    min_rank: int = setting(
        1, "Components every module keeps, 0 lets modules go. At adapter.rank no rank moves.", unit="components", ge=0
    )
    budget_share: float = setting(1.0, "Share of uniform LoRA's parameters that may be spent.", gt=0, le=1)
    growth_limit: float = setting(2.0, "Largest rank of a module, in uniform ranks; at least 4 in all.", ge=1, le=64)
    temperature: float = setting(1.0, "Softness of importance shares: 1 is in proportion, larger is flatter.", gt=0)
    warmup_steps: int | None = setting(None, "Steps without a move at the start. Empty: 12 %.", unit="steps", ge=0)
    final_steps: int | None = setting(None, "Steps without a move at the end. Empty: 30 %.", unit="steps", ge=0)
    allocate_every: int | None = setting(
        None, "Steps between events. Empty: 5 %, at least 7 unless fewer than three would fit.", unit="steps", ge=1
    )

    rota: ProbeRota = state(ProbeRota)
    listening: Listening = state(Listening)

    def check(self, total: int, rank: int) -> None:
        """Refuse a schedule without events, and a floor above the uniform rank."""
        self.phases(total)
        if self.min_rank > rank:
            raise ConfigError(f"strategy.min_rank={self.min_rank}: must not exceed adapter.rank={rank}; lower it")

    def phases(self, total: int) -> Phases:
        """Return when capacity may move in a run of `total` steps."""
        set_apart = {name: getattr(self, name) for name in ("warmup_steps", "final_steps", "allocate_every")}
        return Phases.of(total, **set_apart, share=0.05, memory=round(1 / (1 - self.smoothing)))

    def events(self, total: int, rank: int) -> list[int]:
        """Return the steps after which capacity may move."""
        return self.phases(total).events() if self._moves_rank(rank) or self.allocation in WEIGHING else []

    def _moves_rank(self, uniform: int) -> bool:
        """Say whether rank moves at all: not where every module keeps its uniform rank."""
        return self.allocation in MOVING and self.min_rank < uniform

    def gate_mode(self) -> str | None:
        """Return how the adapters react to the input."""
        return None if self.gates == "off" else self.gates

    def parameter_budget(self, uniform: int) -> int:
        """Return the share of uniform LoRA's parameters that may be spent."""
        return int(self.budget_share * uniform)

    def ranks(self, modules: Sequence[ModuleInfo], probe: Probe) -> list[int]:
        """Start uniform, or by a look at training rows; gates are paid from the same budget."""
        way = self.first_ranks if self._moves_rank(probe.rank) else "uniform"
        return first_ranks(way, modules, probe, self.gate_mode(), limit=self.growth_limit, min_rank=self.min_rank)

    def max_rank(self, module: ModuleInfo, rank: int, probe: Probe) -> int:
        """Leave room to grow where ranks move."""
        return room_to_grow(module, rank, probe.rank, self.growth_limit) if self._moves_rank(probe.rank) else rank

    def begin(self, adapters: Adapters, probe: Probe) -> list[Edit]:
        """Start from data where that is asked for, and listen already where the first event comes that early."""
        return [*super().begin(adapters, probe), *self._turn(adapters, 0, self.phases(probe.total))]

    def start(self, adapters: Adapters) -> None:
        """Begin the averages."""
        self.worth.start(adapters)

    def observe(self, adapters: Adapters, step: Step) -> None:
        """Take what every component is worth, and what probes and sketches hear, from the gradients."""
        self.worth.observe(adapters)
        if self.growth == "probe":
            self.rota.observe(adapters)
        self.listening.observe(adapters)

    def allocate(self, adapters: Adapters, step: Step) -> list[Edit]:
        """Move capacity at an event; between events, send the probes on."""
        phases = self.phases(step.total)
        edits: list[Edit] = []
        moves_rank = self._moves_rank(adapters.reference_rank)
        if phases.is_event(step.index) and (moves_rank or self.allocation in WEIGHING):
            worth = self.worth.of(adapters).double().cpu().numpy()
            if moves_rank:
                first = self.commit and step.index == phases.first_event
                edits += (self._commitment if first else self._moves)(adapters, worth, step)
            if self.allocation in WEIGHING:
                edits += weighted(adapters, worth.sum(1), self.temperature)
        if self.growth == "probe":
            edits += self.rota.rotate(adapters, step.index, every=phases.allocate_every, lr=step.lr)
        return edits + self._turn(adapters, step.index, phases)

    def signals(self, adapters: Adapters) -> dict[str, np.ndarray | Tensor]:
        """Record each module's importance per parameter."""
        return {"importance": self.worth.per_parameter(adapters)}

    @property
    def worth(self) -> Worth:
        """How components are valued."""
        return Worth(self.score, self.smoothing)

    def _turn(self, adapters: Adapters, step: int, phases: Phases) -> list[Edit]:
        """Return what begins or ends listening after `step`, where rank moves by what is heard."""
        if not self._moves_rank(adapters.reference_rank):
            return []
        return [*self.listening.turn(step, phases, len(adapters), first=self.commit, later=self.growth == "gradient")]

    def _commitment(self, adapters: Adapters, worth: np.ndarray, step: Step) -> list[Edit]:
        """Return the edits of the first event, which sets all ranks anew."""
        lot, along = self.lot if self.allocation == "random" else None, self.rows == "gradient"
        heard, floor = self.listening.heard(adapters), self.min_rank
        return commitment(adapters, heard, worth, step, self.promises, along=along, min_rank=floor, lot=lot)

    def _moves(self, adapters: Adapters, worth: np.ndarray, step: Step) -> list[Edit]:
        """Return the moves of one event: at most b0 · (1 - progress³) components, at least one."""
        phases = self.phases(step.total)
        first = max(1, round(0.03 * adapters.reference_rank * len(adapters))) if self.moves is None else self.moves
        moves = max(min(1, first), round(first * (1 - phases.progress(step.index) ** 3)))
        fresh = min(2 * phases.allocate_every, step.index)  # those of the start are never fresh
        benefit = None if self.growth == "weakest" else self.rota.benefits(len(adapters))
        if self.growth == "gradient":
            benefit = self.listening.benefits(adapters, lr=step.lr, steps=phases.allocate_every)
        standing = standing_of(adapters, worth, benefit, fresh=fresh, min_rank=self.min_rank)
        if self.allocation == "random":
            standing = drawn(standing, adapters.seed, "random allocation", self.lot, step.index)
        if self.solver == "softmax" and self.allocation != "random":
            share = np.array([score.sum() for score in standing.scores])
            target = target_ranks(share, standing, budget=adapters.spendable, temperature=self.temperature)
            return list(toward(standing, target, moves=moves, per_module=self.moves_per_module))
        return list(swap(standing, moves=moves, per_module=self.moves_per_module, hysteresis=self.hysteresis))
