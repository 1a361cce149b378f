"""A strategy in the loop of transformers' Trainer, and of those that inherit it, such as TRL's.

The Trainer calls back with complete gradients before the optimizer's step, and again after it, before they are cleared:
once for each optimizer step, whatever the accumulation. Gradients are clipped by then; all of a step by one factor.
"""

from __future__ import annotations

import atexit
import shutil
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn
from torch.optim import Optimizer
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from dynlora import strategies
from dynlora.analysis.learning import LEARNING, Symptom, payload
from dynlora.config import RunConfig, parse_config
from dynlora.custom_loop.files import Parts
from dynlora.engine import edits
from dynlora.engine.context import Step
from dynlora.engine.loop.step_signals import StepSignals
from dynlora.engine.model.adapters import Adapters
from dynlora.engine.strategy import Strategy
from dynlora.errors import ConfigError, NotMergeableError
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


EVALUATED = "eval_"
"""What the Trainer puts before the name of a metric."""

FOLDER = "dynlora"
"""Folder of a Trainer's checkpoint that holds the strategy's state."""


class Steps(Protocol):
    """What is called back: an attached strategy."""

    model: nn.Module
    adapters: Adapters
    strategy: Strategy
    optimizer: Optimizer
    total: int
    index: int
    recording: LoopRecord | None

    def observe(self) -> None:
        """Look at a step's gradients."""

    def reallocate(self) -> Any:
        """Move rank after the weights moved."""

    def save(self, folder: str | Path) -> None:
        """Write the state."""

    def load(self, folder: str | Path) -> None:
        """Continue from a state."""

    def export(self, folder: str | Path) -> Path:
        """Write the adapter as PEFT loads it."""
        ...


class Allocate(TrainerCallback):
    """Takes the steps of an attached strategy where the Trainer takes its own.

    Its state is in each of the Trainer's checkpoints, and is read where the Trainer resumes from one or loads the
    best. Beside it is the adapter as PEFT loads it: `PeftModel.from_pretrained(base, "checkpoint-100")`.
    """

    def __init__(self, attached: Steps) -> None:
        """Take the steps of `attached`."""
        self.attached = attached
        self._said = ""

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **of: Any) -> None:
        """Refuse what cannot work, and continue from the checkpoint that the Trainer resumes from.

        Raises:
            ConfigError: naming the argument, and what to do.
        """
        _check(self.attached, args, state, of.get("optimizer"))
        if self.attached.recording is not None:
            self.attached.recording.ends_itself = False
        if state.global_step:
            self.attached.load(_checkpoint(args, state.global_step) / FOLDER)

    def on_pre_optimizer_step(self, *_: Any, **of: Any) -> None:
        """Look at the gradients."""
        self.attached.observe()

    def on_optimizer_step(self, *_: Any, **of: Any) -> None:
        """Move rank, unless the optimizer skipped the step: half precision does at an overflow."""
        if getattr(of.get("optimizer"), "step_was_skipped", False):
            self.attached.index -= 1
        else:
            self.attached.reallocate()

    def on_substep_end(self, *_: Any, **of: Any) -> None:
        """Let the next part of an accumulated step drop other entries."""
        streams = self.attached.adapters.streams
        streams.at(self.attached.index, 1 + (streams.key[1] if len(streams.key) > 1 else 0))

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: Any = None, **_: Any
    ) -> None:
        """Record the loss as the Trainer says it: the mean over its logging steps."""
        if self.attached.recording is not None and "loss" in (logs or {}):
            self.attached.recording.loss(state.global_step, float(logs["loss"]))

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, metrics: Any = None, **_: Any
    ) -> None:
        """Record the metrics of an evaluation."""
        if self.attached.recording is not None:
            self.attached.recording.metrics(state.global_step, evaluated(metrics or {}))

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Put the state and the adapter beside the Trainer's."""
        if state.is_world_process_zero:
            folder = _checkpoint(args, state.global_step)
            self.attached.save(folder / FOLDER)
            self._export(folder)

    def _export(self, folder: Path) -> None:
        """Put the adapter into a checkpoint as PEFT loads it; where PEFT has no form for it, say so once."""
        aside = folder / f".{FOLDER}-adapter"
        shutil.rmtree(aside, ignore_errors=True)
        try:
            self.attached.export(aside)
            for path in sorted(aside.iterdir(), reverse=True):  # weights first: the config says that they are there
                path.replace(folder / path.name)
        except (ConfigError, NotMergeableError) as error:
            if str(error) != self._said:
                warnings.warn(f"{folder.name} holds no adapter for PEFT, and training continues: {error}", stacklevel=2)
            self._said = str(error)
        finally:
            shutil.rmtree(aside, ignore_errors=True)

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Take the ranks of the best checkpoint where the Trainer took its weights."""
        if args.load_best_model_at_end and state.best_model_checkpoint:
            self.attached.load(Path(state.best_model_checkpoint) / FOLDER)
        if self.attached.recording is not None:
            self.attached.recording.finish()


def evaluated(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Return the metrics of a Trainer's evaluation by their own names; how fast it was is none."""
    return {
        name.removeprefix(EVALUATED): float(value)
        for name, value in metrics.items()
        if name.startswith(EVALUATED) and isinstance(value, int | float) and not name.endswith(("second", "runtime"))
    }


def _checkpoint(args: TrainingArguments, step: int) -> Path:
    return Path(args.output_dir or ".") / f"checkpoint-{step}"


def _check(attached: Steps, args: TrainingArguments, state: TrainerState, optimizer: Any) -> None:
    """Refuse what cannot work.

    Raises:
        ConfigError: naming the argument, and what to do.
    """
    if getattr(optimizer, "optimizer", optimizer) is not attached.optimizer:
        raise ConfigError(
            "Trainer(optimizers=...): the Trainer made an optimizer of its own, without the strategy's groups; give "
            "optimizers=(attached.optimizer, None)"
        )
    if state.max_steps != attached.total:
        raise ConfigError(
            f"attach(steps={attached.total}): the Trainer takes {state.max_steps} steps, and schedules are made for "
            "their number; attach with as many"
        )
    for name in ("deepspeed", "fsdp"):
        if getattr(args, name, None):
            raise ConfigError(
                f"TrainingArguments({name}=...): cuts weights into pieces, in which no rank can move; leave it out"
            )
    if args.world_size > 1 or args.n_gpu > 1:
        raise ConfigError(
            f"TrainingArguments: {max(args.world_size, args.n_gpu)} devices would decide each for itself; use one, or "
            "`accelerate launch -m dynlora train`"
        )
    if type(attached.strategy).penalty is not Strategy.penalty:
        raise ConfigError(
            f"strategy={type(attached.strategy).__name__}: adds a penalty to the loss, which the Trainer computes "
            "itself; use a loop of your own with attached.penalty(), or dynlora.train"
        )
