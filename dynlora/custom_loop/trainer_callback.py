"""A strategy in the loop of transformers' Trainer, and of those that inherit it, such as TRL's.

The Trainer calls back with complete gradients before the optimizer's step, and again after it, before they are cleared:
once for each optimizer step, whatever the accumulation. Gradients are clipped by then; all of a step by one factor.
"""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from torch import nn
from torch.optim import Optimizer
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from dynlora.custom_loop.loop_record import LoopRecord
from dynlora.engine.model.adapters import Adapters
from dynlora.engine.strategy import Strategy
from dynlora.errors import ConfigError, NotMergeableError

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
