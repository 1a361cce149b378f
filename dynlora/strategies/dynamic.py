"""Dynamic LoRA: importance is measured while training, and rank moves to where it pays, under a fixed budget."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dynlora.engine import scoring
from dynlora.engine.adapters import Adapters
from dynlora.engine.allocation import Standing, swap, target_ranks, toward, trimmed_ranks
from dynlora.engine.edits import Edit, SetProbe, SetScale
from dynlora.engine.gates import FEATURES
from dynlora.engine.modules import ModuleInfo
from dynlora.engine.randomness import stream_seed
from dynlora.engine.schedule import Phases
from dynlora.engine.strategy import Probe, Step, Strategy, setting, state
from dynlora.errors import ConfigError


@dataclass
class Dynamic(Strategy):
    """h = W0 x + s · B(e ⊙ g(φ) ⊙ A x) with ranks that move between modules under one budget of parameters.

    Importance of component j is |⟨b_j, ∂L/∂b_j⟩|, the first-order change of the loss when it goes; it is averaged
    over steps after the absolute value. At every event the components worth least per parameter pay for components
    where one more is worth most; growth keeps the function (b = 0), and s = alpha / r never changes.

    Paper: Liao et al. 2025, arXiv 2501.14859; of which the abstract is known: layer importance evaluated during
    fine-tuning, parameters reallocated, an adaptive strategy on input features.
    Differs: importance formula, solver, schedule and gate are a reconstruction.
    """

    title = "Dynamic LoRA"
    summary = (
        "Measures during training how much the loss hangs on each component, takes rank from modules where it does "
        "little and gives it to modules where it does much, and lets a gate react to the features of each input. "
        "The parameters never exceed those of uniform LoRA."
    )
    formula = (
        r"h = W_0 x + s\, B\,(e \odot g(\varphi) \odot A x), \quad I_j = |\langle b_j, \partial L/\partial b_j\rangle|"
    )
    paper = "Liao et al. 2025, arXiv 2501.14859"
    fidelity = "reconstruction"
    cost = "one dot product a component and step; 9 gate parameters a module, paid from the budget"

    allocation: str = setting(
        "rank",
        "What moves: rank; scalar (a weight a module); both; random (the control: as many moves, drawn); none.",
        choices=("rank", "scalar", "both", "random", "none"),
    )
    gates: str = setting("module", "Input gates: one a module and sequence, or off.", choices=("off", "module"))
    score: str = setting(
        "saliency",
        "Worth of a component: saliency |⟨b, ∂L/∂b⟩|, magnitude ‖b‖·‖a‖, or saliency × its uncertainty.",
        choices=("saliency", "magnitude", "uncertain"),
    )
    solver: str = setting(
        "swap",
        "swap: cheapest out, dearest in; softmax: toward ranks in proportion to importance.",
        choices=("swap", "softmax"),
    )
    growth: str = setting(
        "weakest",
        "Worth of one more component: that of the module's weakest, or of a live probe row.",
        choices=("weakest", "probe"),
    )
    smoothing: float = setting(0.85, "Share of the old average that stays at each step.", unit="per step", ge=0, lt=1)
    hysteresis: float = setting(0.1, "Share by which the benefit of a move must exceed its loss.", ge=0, le=100)
    moves: int | None = setting(
        None,
        "Components moved at most at the first event; falls cubically. Empty: 3 % of all.",
        unit="components",
        ge=1,
    )
    moves_per_module: int = setting(
        2, "Components one module gives or gets at most in an event.", unit="components", ge=1
    )
    min_rank: int = setting(1, "Components every module keeps.", unit="components", ge=0)
    growth_limit: float = setting(2.0, "Largest rank of a module, as a multiple of the uniform rank.", ge=1, le=64)
    temperature: float = setting(1.0, "Softness of importance shares: 1 is in proportion, larger is flatter.", gt=0)
    warmup_steps: int | None = setting(None, "Steps without a move at the start. Empty: 12 %.", unit="steps", ge=0)
    final_steps: int | None = setting(None, "Steps without a move at the end. Empty: 30 %.", unit="steps", ge=0)
    allocate_every: int | None = setting(None, "Steps between events. Empty: 2 %, at least 7.", unit="steps", ge=1)

    probe_sum: dict[int, Tensor] = state(dict)
    probe_steps: dict[int, int] = state(dict)
    benefit: dict[int, float] = state(dict)

    def check(self, total: int, rank: int) -> None:
        """Refuse a schedule without events, and a floor above the uniform rank."""
        self.phases(total)
        if self.min_rank > rank:
            raise ConfigError(
                f"strategy.min_rank={self.min_rank}: must not exceed adapter.rank={rank}, or the budget cannot hold; lower it"
            )

    def phases(self, total: int) -> Phases:
        """Return when capacity may move in a run of `total` steps."""
        memory = round(1 / (1 - self.smoothing))
        return Phases.of(
            total,
            warmup_steps=self.warmup_steps,
            final_steps=self.final_steps,
            allocate_every=self.allocate_every,
            memory=memory,
        )

    def events(self, total: int) -> list[int]:
        """Return the steps after which capacity may move."""
        return [] if self.allocation == "none" else self.phases(total).events()

    def uses_gates(self) -> bool:
        """Say whether the adapters react to the input."""
        return self.gates != "off"

    def ranks(self, modules: Sequence[ModuleInfo], probe: Probe) -> list[int]:
        """Start uniform, a few components short where gates are on: they are paid from the same budget."""
        gate_cost = len(modules) * (FEATURES + 1) if self.uses_gates() else 0
        return trimmed_ranks(probe.rank, [info.cost for info in modules], probe.budget - gate_cost)

    def max_rank(self, module: ModuleInfo, rank: int, probe: Probe) -> int:
        """Leave room to grow where ranks move."""
        if self.allocation not in ("rank", "both", "random"):
            return rank
        return min(round(probe.rank * self.growth_limit), module.d_in, module.d_out)

    def start(self, adapters: Adapters) -> None:
        """Begin the averages."""
        for name in ("worth", "spread", "age", "now"):
            adapters.track(name)

    def observe(self, adapters: Adapters, step: Step) -> None:
        """Take every component's worth from the gradients into its average."""
        now = scoring.component_sensitivity(adapters.modules, adapters.track("now"))
        worth, spread, age = (adapters.track(name) for name in ("worth", "spread", "age"))
        worth.lerp_(now, 1 - self.smoothing)
        if self.score == "uncertain":
            spread.lerp_((now - worth).abs_(), 1 - self.smoothing)
        age.add_(1)
        if self.growth == "probe":
            self._observe_probes(adapters)

    def allocate(self, adapters: Adapters, step: Step) -> list[Edit]:
        """Move capacity at an event; between events, rotate the probes."""
        phases = self.phases(step.total)
        edits: list[Edit] = []
        if self.allocation != "none" and phases.is_event(step.index):
            edits += self._move(adapters, step, phases)
        if self.growth == "probe":
            edits += self._rotate(adapters, step, phases)
        return edits

    def signals(self, adapters: Adapters) -> dict[str, np.ndarray | Tensor]:
        """Record each module's importance per parameter, Σ_j I_j / (r · (d_in + d_out))."""
        total = self._worth(adapters).sum(1)
        size = torch.tensor([max(1, m.rank) * m.info.cost for m in adapters], device=total.device)
        return {"importance": total / size}

    def _worth(self, adapters: Adapters) -> Tensor:
        """Return what each component is worth, (n_modules, widest max_rank), zero where inactive."""
        worth, spread, age = (adapters.track(name) for name in ("worth", "spread", "age"))
        corrected = worth / (1 - self.smoothing ** age.clamp_min(1))
        if self.score == "uncertain":
            return corrected * spread / (1 - self.smoothing ** age.clamp_min(1))
        if self.score == "magnitude":
            out = torch.zeros_like(worth)
            for row, module in enumerate(adapters):
                r = module.rank
                out[row, :r] = module.lora_A.detach()[:r].norm(dim=1) * module.lora_B.detach()[:, :r].norm(dim=0)
            return out
        return corrected

    def _move(self, adapters: Adapters, step: Step, phases: Phases) -> list[Edit]:
        """Return the edits of one event."""
        worth = self._worth(adapters).double().cpu().numpy()
        edits: list[Edit] = []
        if self.allocation in ("scalar", "both"):
            edits += self._weigh(adapters, worth)
        if self.allocation in ("rank", "both", "random"):
            edits = [*self._reallocate(adapters, worth, step, phases), *edits]
        return edits

    def _reallocate(self, adapters: Adapters, worth: np.ndarray, step: Step, phases: Phases) -> list[Edit]:
        """Return the moves of one event."""
        limits = {"moves": self._allowed(adapters, phases.progress(step.index)), "per_module": self.moves_per_module}
        standing = self._standing(adapters, worth, fresh=2 * phases.allocate_every)
        if self.allocation == "random":
            return list(swap(self._drawn(standing, adapters.seed, step), hysteresis=0.0, **limits))
        if self.solver == "softmax":
            room = adapters.budget - adapters.gate_parameters()
            share = np.array([score.sum() for score in standing.scores])
            target = target_ranks(share, standing, budget=room, temperature=self.temperature)
            return list(toward(standing, target, **limits))
        return list(swap(standing, hysteresis=self.hysteresis, **limits))

    def _allowed(self, adapters: Adapters, progress: float) -> int:
        """Return how many components may move now: b0 · (1 - progress³), at least one."""
        first = self.moves or max(1, round(0.03 * adapters.reference_rank * len(adapters)))
        return max(1, round(first * (1 - progress**3)))

    def _standing(self, adapters: Adapters, worth: np.ndarray, fresh: int) -> Standing:
        """Return scores and limits; components younger than `fresh` steps neither go nor speak for their module."""
        age = adapters.track("age").cpu().numpy()
        scores = [worth[m, : module.rank] for m, module in enumerate(adapters)]
        grown_up = [age[m, : module.rank] >= fresh for m, module in enumerate(adapters)]
        cost = np.array(adapters.costs)
        used = int(np.array([module.rank for module in adapters]) @ cost) + adapters.gate_parameters()
        return Standing(
            scores,
            grown_up,
            self._benefit(scores, grown_up),
            cost,
            np.array([module.max_rank for module in adapters]),
            self.min_rank,
            adapters.budget - used,
        )

    def _benefit(self, scores: list[np.ndarray], grown_up: list[np.ndarray]) -> np.ndarray:
        """Return what one more component is worth to each module, (n_modules,)."""
        if self.growth == "probe":
            return np.array([self.benefit.get(m, np.nan) for m in range(len(scores))])
        return np.array([s[g].min() if g.any() else np.nan for s, g in zip(scores, grown_up, strict=True)])

    def _drawn(self, standing: Standing, seed: int, step: Step) -> Standing:
        """Return the same limits with drawn scores: who gives and who gets is chance, how much is not."""
        rng = np.random.default_rng(stream_seed(seed, "random allocation", step.index))
        return Standing(
            [rng.random(len(score)) * c for score, c in zip(standing.scores, standing.cost, strict=True)],
            standing.may_go,
            (1e9 + rng.random(len(standing.cost)) * 1e9) * standing.cost,
            standing.cost,
            standing.max_rank,
            standing.min_rank,
            standing.slack,
        )

    def _weigh(self, adapters: Adapters, worth: np.ndarray) -> list[Edit]:
        """Return a scale a module: n · softmax(log importance / temperature), mean 1, moved halfway at an event."""
        total = np.maximum(worth.sum(1), 1e-30)
        logs = np.log(np.where(np.isfinite(total), total, 1e-30)) / self.temperature
        weight = np.exp(logs - logs.max())
        weight *= len(weight) / weight.sum()
        edits: list[Edit] = []
        for m, module in enumerate(adapters):
            old = 1.0 if module.scale is None or not module.rank else float(module.scale[0])
            edits.append(SetScale(m, (0.5 * (old + float(weight[m])),) * module.rank))
        return edits

    def _observe_probes(self, adapters: Adapters) -> None:
        """Add the gradients of live probe rows to their sums: the mean gradient counts, not the mean of its size."""
        for m, module in enumerate(adapters):
            gradient = scoring.probe_gradient(module)
            if gradient is not None:
                self.probe_sum[m] = self.probe_sum[m] + gradient if m in self.probe_sum else gradient.clone()
                self.probe_steps[m] = self.probe_steps.get(m, 0) + 1

    def _rotate(self, adapters: Adapters, step: Step, phases: Phases) -> list[Edit]:
        """Move the probes on, a sixteenth of the modules at a time, and bring what they saw to units of the loss.

        A probe's benefit is the first-order gain of an optimizer that moves each entry of b by the rate in each step
        until the next event: lr · allocate_every · ‖mean ∂L/∂b‖₁.
        """
        n_groups = min(16, len(adapters))
        dwell = max(1, phases.allocate_every // n_groups)
        if step.index % dwell:
            return []
        for m in list(self.probe_sum):
            mean = self.probe_sum.pop(m) / self.probe_steps.pop(m)
            self.benefit[m] = step.lr * phases.allocate_every * float(mean.abs().sum())
        turn = (step.index // dwell) % n_groups
        return [SetProbe(tuple(range(turn, len(adapters), n_groups)))]
