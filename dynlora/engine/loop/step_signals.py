"""What is recorded of a step: vectors over modules, read from the device one step late so that nothing waits."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from dynlora.engine.allocation import scores
from dynlora.engine.context import Step
from dynlora.engine.model.adapters import Adapters
from dynlora.engine.randomness import stream
from dynlora.engine.recorder import Recorder
from dynlora.engine.strategy import Strategy

RECENT = 50
"""Step times kept for the median."""


@dataclass
class Timing:
    """Where the time goes, in milliseconds a step; medians over recent steps of this process.

    `train_s` and `evaluated_s` are the seconds that all steps and all evaluations took.
    """

    step_ms: deque[float] = field(default_factory=lambda: deque(maxlen=RECENT))
    strategy_ms: deque[float] = field(default_factory=lambda: deque(maxlen=RECENT))
    train_s: float = 0.0
    evaluated_s: float = 0.0
    open_ms: float = 0.0

    @contextmanager
    def strategy(self) -> Iterator[None]:
        """Attribute a section to the strategy."""
        start = time.perf_counter()
        yield
        self.open_ms += 1000 * (time.perf_counter() - start)

    def end_step(self, seconds: float) -> None:
        """Close a step."""
        self.step_ms.append(1000 * seconds)
        self.strategy_ms.append(self.open_ms)
        self.open_ms = 0.0
        self.train_s += seconds

    def medians(self) -> dict[str, float]:
        """Return train_s, evaluated_s, step_ms_median and strategy_ms_median."""
        return {
            "train_s": self.train_s,
            "evaluated_s": self.evaluated_s,
            "step_ms_median": _median(self.step_ms),
            "strategy_ms_median": _median(self.strategy_ms),
        }


def _median(values: deque[float]) -> float:
    """Return the median, 0 of nothing."""
    ordered = sorted(values)
    return ordered[len(ordered) // 2] if ordered else 0.0


_LEAST = 1e-6
"""Below any concentration that a rank can have; keeps a division that is not used from being one by zero."""

PARAMETERS = "adapter_parameters"
"""Name of the series that says how many adapter parameters reach the output, gates included."""

SIGNS = 16
"""Random vectors that estimate the effective rank of an update without factors."""

UNITS = {
    "importance": "effect on the loss",
    "rank": "components",
    "gate": "factor",
    "scale": "factor",
    "grad_norm": "norm",
    "delta_norm": "norm",
    "effective_rank": "components",
}
"""The signals over modules that every run has, and their units."""

UNITS_OF_COMPONENTS = {"factor": "factor", "trained": "share"}
"""The signals over components, where a method gives components factors or trains a part of each, and their units."""


class StepSignals:
    """Collects a step's numbers on the device and hands them to the recorder at the next step.

    Attributes:
        last_loss: the newest loss that was read, a float.
        has_loss: whether one was read yet.
    """

    def __init__(
        self,
        adapters: Adapters,
        strategy: Strategy,
        recorder: Recorder,
        every: int,
        reduce: Callable[[Tensor], Tensor] = lambda value: value,
    ) -> None:
        """Announce the signals.

        Args:
            adapters: of the model.
            strategy: whose signals are recorded.
            recorder: takes them.
            every: distance of the costlier signals, in steps.
            reduce: mean over the processes, for what each of them sees on its own part of a batch.
        """
        self.reduce = reduce
        self.adapters = adapters
        self.strategy = strategy
        self.recorder = recorder
        self.every = every
        self.last_loss = float("nan")
        self.has_loss = False
        self._weighed: Tensor | None = None
        self._strategy_weighs = False
        self._pending: tuple[Step, dict[str, int], list[str], Tensor, torch.Event | None] | None = None
        optional = {"gate": adapters.gates is not None, "scale": any(m.scale_logit is not None for m in adapters)}
        for name, unit in UNITS.items():
            if optional.get(name, True):
                recorder.define_signal(name, "module", unit, len(adapters))
        self._names = set(UNITS)

    @torch.no_grad()
    def capture_importance(self) -> None:
        """Note the importance of components while their gradients are there: edits permute and drop components."""
        self._weighed = None if self._strategy_weighs else self._importance()

    @torch.no_grad()
    def record(
        self,
        step: Step,
        scalars: Mapping[str, Tensor],
        budget: dict[str, int] | None = None,
        decisions: list[dict[str, Any]] | None = None,
    ) -> None:
        """Take a step's numbers; gradients are still there. The step before is handed to the recorder.

        Args:
            step: where training is.
            scalars: loss and penalties, tensors without dimensions on the device.
            budget: what a decision left of the budget, None when nothing was decided.
            decisions: rows of the decision log.
        """
        vectors = self._vectors(step)
        in_use = self.adapters.active_parameters() + self.adapters.gate_parameters()
        in_use = torch.as_tensor(in_use, dtype=torch.float32, device=self.adapters[0].lora_A.device)
        scalars = {**scalars, PARAMETERS: in_use}
        # One block, one copy: a copy for each number would wait for the device each time. It is read one step late,
        # when it has arrived, so that no step of training waits for what is only recorded.
        block = torch.cat([*vectors.values(), *(value.reshape(1) for value in scalars.values())])
        self.flush()
        copy = block.to("cpu", non_blocking=True)
        arrived = None if block.device.type == "cpu" else torch.Event(block.device)
        if arrived is not None:
            arrived.record()
        sizes = {name: len(vector) for name, vector in vectors.items()}
        self._pending = (step, sizes, list(scalars), copy, arrived)
        if budget is not None:
            self._decide(step, budget, decisions or [])
        if arrived is None:
            self.flush()

    def record_timing(self, step: Step, timing: Timing) -> None:
        """Record the milliseconds of the step just done, and the strategy's part of them."""
        self.recorder.scalar("step_ms", "train", step.index, timing.step_ms[-1])
        self.recorder.scalar("strategy_ms", "train", step.index, timing.strategy_ms[-1])

    def flush(self) -> None:
        """Hand the pending step to the recorder."""
        if self._pending is None:
            return
        step, sizes, scalars, block, arrived = self._pending
        self._pending = None
        if arrived is not None:
            arrived.synchronize()
        values = block.numpy().astype(np.float32)
        start = 0
        for name, size in sizes.items():
            self.recorder.vector(name, step.index, values[start : start + size])
            start += size
        for name, value in zip(scalars, values[start:], strict=True):
            self.recorder.scalar(name, "train", step.index, float(value))
            if name == "loss":
                self.last_loss, self.has_loss = float(value), True
                self.recorder.scalar("lr", "train", step.index, step.lr)
        self.recorder.progress(step.index)

    def _decide(self, step: Step, budget: dict[str, int], decisions: list[dict[str, Any]]) -> None:
        """Record a decision: who gave, who got, and what it left of the budget."""
        touched = {row[key] for row in decisions for key in ("donor", "receiver", "module") if row.get(key) is not None}
        self.recorder.event(step.index, "reallocate", sorted(touched), {**budget, "edits": decisions})

    def _vectors(self, step: Step) -> dict[str, Tensor]:
        """Return this step's signals by name: (n_modules,) each, those over components as long as all their room."""
        device = self.adapters[0].lora_A.device
        signals: dict[str, Any] = dict(self.strategy.signals(self.adapters))
        if "rank" not in signals:
            signals["rank"] = self._ranks(device)
        self._strategy_weighs = "importance" in signals
        if not self._strategy_weighs:
            signals["importance"] = self._importance() if self._weighed is None else self._weighed
        self._weighed = None
        signals |= self._module_factors()
        over_components: dict[str, Tensor] = {}
        if step.index % self.every == 0 or step.index == step.total:
            signals |= self._norms()
            over_components = {**self._factors(), **self.strategy.component_signals(self.adapters)}
        vectors = {name: torch.as_tensor(value, dtype=torch.float32, device=device) for name, value in signals.items()}
        for axis, part in (("module", vectors), ("component", over_components)):
            for name, vector in part.items():
                if name not in self._names:
                    self._names.add(name)
                    own = self.strategy.own_signals.get(name)
                    unit = UNITS_OF_COMPONENTS.get(name, "") if own is None else own.unit
                    self.recorder.define_signal(name, axis, unit, len(vector))
        return vectors | over_components

    def _module_factors(self) -> dict[str, Tensor]:
        """Return the gates averaged over the batch and the learned scales, where there are any."""
        gates = self.adapters.gates
        scales = [scale for module in self.adapters if (scale := module.module_scale()) is not None]
        factors = {"scale": torch.stack(scales).detach()} if scales else {}
        if gates is not None and gates.values is not None:
            factors["gate"] = self.reduce(gates.values.detach().mean(0))
        return factors

    def _ranks(self, device: torch.device) -> Tensor:
        """Return the components that reach the output, by module; factors are counted where they are."""
        counts = [module.active_rank_on_device() for module in self.adapters]
        if not any(isinstance(count, Tensor) for count in counts):
            return torch.tensor(counts, dtype=torch.float32, device=device)
        return torch.stack([torch.as_tensor(count, dtype=torch.float32, device=device) for count in counts])

    def _factors(self) -> dict[str, Tensor]:
        """Return the factor of every component, each module's room after the other, NaN where there is none active.

        Nothing where no module has factors.
        """
        factors = [module.factors(module.rank) for module in self.adapters]
        if all(factor is None for factor in factors):
            return {}
        out = []
        for module, factor in zip(self.adapters, factors, strict=True):
            row = module.lora_A.new_full((module.max_rank,), float("nan"))
            row[: module.rank] = 1.0 if factor is None else factor.detach()
            out.append(row)
        return {"factor": torch.cat(out)}

    def _importance(self) -> Tensor:
        """Return Σ_j |⟨b_j, ∂L/∂b_j⟩| of this batch, (n_modules,), for strategies that do not score.

        L is what is trained on, a strategy's penalty included.
        """
        widest = max(module.max_rank for module in self.adapters)
        out = torch.zeros(len(self.adapters), widest, device=self.adapters[0].lora_A.device)
        return scores.component_sensitivity(self.adapters.modules, out).sum(1)

    def _norms(self) -> dict[str, Tensor]:
        """Return the norms of the gradient of B and A, and norm and effective rank of the update, by module."""
        grads, updates = [], []
        for module in self.adapters:
            parts = [p.grad.norm() for p in (module.lora_A, module.lora_B) if p.grad is not None]
            grads.append(torch.stack(parts).norm() if parts else module.lora_A.new_zeros(()))
            updates.append(torch.stack(spectrum(module)))
        norm, effective = torch.stack(updates).unbind(1)
        return {"grad_norm": torch.stack(grads), "delta_norm": norm, "effective_rank": effective}


class Measured(Protocol):
    """An adapted module whose update is measured: ours, or one of PEFT's."""

    @property
    def scaling(self) -> float:
        """What the update is multiplied with: alpha / r."""
        ...

    def measured(self) -> tuple[Tensor | None, Tensor]:
        """Return A and B of the update; None and the update itself where it has no factors."""
        ...


def spectrum(module: Measured) -> tuple[Tensor, Tensor]:
    """Return two figures of the update ΔW = scaling · B diag(e) A, without forming it or its singular values σ.

    The norm is ‖ΔW‖_F = √Σσ². The effective rank is (Σσ²)² / Σσ⁴: how many components carry the update, from 1 to the
    rank, and 0 while ΔW is zero. Both are traces of M = BᵀB AAᵀ, whose eigenvalues are σ² / scaling².
    """
    A, B = module.measured()
    if A is None:
        return _spectrum_of_matrix(module.scaling * B.detach())
    A, B = A.detach(), B.detach()
    product = (B.t() @ B) @ (A @ A.t())
    energy = product.diagonal().sum().clamp_min(0)
    share = product / energy.clamp_min(torch.finfo(energy.dtype).tiny)
    concentration = (share * share.t()).sum()  # Σ (σ² / Σσ²)², at least 1 / rank unless ΔW is zero
    effective = torch.where(concentration > 0, 1 / concentration.clamp_min(_LEAST), concentration)
    return module.scaling * energy.sqrt(), effective


def _spectrum_of_matrix(update: Tensor) -> tuple[Tensor, Tensor]:
    """Return the same of an update that has no factors; Σσ⁴ = E‖ΔWᵀΔW z‖² is estimated with fixed random signs z."""
    signs = torch.randint(0, 2, (update.shape[1], SIGNS), generator=stream(0, "spectrum", update.shape[1])) * 2.0 - 1
    energy = update.square().sum()
    image = update.t() @ (update @ signs.to(update))
    fourth = image.square().sum() / SIGNS
    effective = torch.where(fourth > 0, energy.square() / fourth.clamp_min(torch.finfo(fourth.dtype).tiny), fourth)
    return energy.sqrt(), effective
