"""A loop of one's own as a run of the dashboard: what the strategy does, step by step, in the run store."""

from __future__ import annotations

import atexit
import time
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import torch

from dynlora import strategies
from dynlora.analysis.learning import LEARNING, Symptom, payload
from dynlora.config import RunConfig, parse_config
from dynlora.custom_loop.files import Parts
from dynlora.engine import edits
from dynlora.engine.context import Step
from dynlora.engine.loop.step_signals import StepSignals
from dynlora.store.meta import meta_of
from dynlora.store.rows import ModuleRow
from dynlora.store.writer import RunWriter


class LoopRecord:
    """Records what an attached strategy does.

    Attributes:
        folder: of the run.
        ends_itself: whether the last step ends the run; a Trainer evaluates after it, and ends it then.
    """

    def __init__(self, parts: Parts, name: str, runs_dir: Path, data: str, every: int) -> None:
        """Make the run and record its start."""
        self._parts, self._since, self.ends_itself = parts, time.perf_counter(), True
        config, adapters = config_of(parts, name, data, every), parts.adapters
        meta = meta_of(config, parts.strategy.fidelity, {}) | self._facts()
        self.folder = RunWriter.create(
            runs_dir, config_yaml=config.to_yaml(), meta=meta, max_steps=parts.total, state="running"
        )
        self._writer: RunWriter | None = RunWriter.open(self.folder, resume_from=None)
        atexit.register(self.close)
        infos = [(module.info, module.max_rank) for module in adapters]
        self._writer.define_modules([ModuleRow.of(info, most) for info, most in infos])
        self._signals = StepSignals(adapters, parts.strategy, self._writer, config.log.every)
        self._signals.record(Step(parts.index, parts.total, 0.0), {})
        self._writer.commit()

    def capture_importance(self) -> None:
        """Note the importance of components while their gradients are there, before edits move them."""
        if self._writer is not None:
            self._signals.capture_importance()

    def step(self, step: Step, made: Sequence[edits.Edit]) -> None:
        """Record a step that was taken, gradients still there; the last one ends the run."""
        if self._writer is None:
            return
        now = time.perf_counter()
        scalars = {} if step.loss is None else {"loss": step.loss.detach().float().reshape(())}
        budget = None
        if any(edits.is_logged(edit) for edit in made):
            count = self._parts.adapters.adapter_parameter_count()
            budget = {"budget": count["budget"], "budget_used": count["active"] + count["gate"]}
        self._signals.record(step, scalars, budget, edits.describe(list(made)))
        self._writer.scalar("step_ms", "train", step.index, 1000 * (now - self._since))
        self._since = now
        if step.index == step.total and self.ends_itself:
            self.finish()

    def learning(self, step: int, symptoms: Sequence[Symptom]) -> None:
        """Record what a look at the first steps found."""
        if self._writer is not None:
            self._writer.event(step, LEARNING, [], payload(symptoms))

    def loss(self, step: int, value: float) -> None:
        """Record a training loss that was not known when the step was taken."""
        if self._writer is not None:
            self._writer.scalar("loss", "train", step, value)

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Record an evaluation's numbers."""
        if self._writer is not None:
            for name, value in values.items():
                self._writer.scalar(name, "validation", step, float(value))
            self._writer.commit()

    def finish(self) -> None:
        """End the run: finished, or stopped where steps are left."""
        if self._writer is not None:
            self._signals.flush()
            for name, value in self._facts().items():
                self._writer.set_meta(name, value)
            self._writer.finish("finished" if self._parts.index >= self._parts.total else "stopped")
            self._writer = None

    def close(self) -> None:
        """Let go of the run without ending it: it counts as interrupted."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _facts(self) -> dict[str, Any]:
        """Return what pages ask of a run."""
        parts = self._parts
        events = parts.strategy.events(parts.total, parts.adapters.reference_rank)
        return {
            "recorded_by": "a loop of its own",
            "task": parts.task.name,
            "peft_task_type": parts.task.peft_task_type,
            "task_facts": parts.task.facts(),
            "params": {**parts.adapters.adapter_parameter_count(), "head": 0},
            "planned_events": len(events),
            "first_reallocation": events[0] if events else None,
            "scaling": {module.info.name: module.scaling for module in parts.adapters},
        }


def config_of(parts: Parts, name: str, data: str, every: int) -> RunConfig:
    """Return the configuration that says the same of the run as the arguments of `attach` did."""
    names = {kind: known for known, kind in strategies.registry().items()}
    own = {field.name: getattr(parts.strategy, field.name) for field in fields(parts.strategy) if field.init}
    usual = {field.name: field.default for field in fields(parts.strategy) if field.default is not MISSING}
    own = {setting: value for setting, value in own.items() if usual.get(setting, MISSING) != value}
    adapters, model = parts.adapters, getattr(parts.model, "config", None)
    return parse_config(
        {
            "name": name,
            "seed": adapters.seed,
            "data": {"name": data},
            "model": {"name": str(getattr(model, "name_or_path", "") or type(parts.model).__name__)},
            "adapter": {"rank": adapters.reference_rank, "alpha": parts.lora_alpha},
            "strategy": {"name": names[type(parts.strategy)], **own},
            "train": {"steps": parts.total, "lr": float(parts.optimizer.param_groups[0]["lr"]) or 1e-3},
            "log": {"every": every},
        }
    )


def detached(loss: torch.Tensor | float | None) -> torch.Tensor | None:
    """Return a loss as a tensor without its graph; None stays None."""
    return None if loss is None else torch.as_tensor(loss).detach()
