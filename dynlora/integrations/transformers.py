"""`RecordCallback`: two lines that make a run of what transformers' Trainer, or TRL's, trains with PEFT.

    from dynlora.integrations.transformers import RecordCallback
    Trainer(..., callbacks=[RecordCallback("my-run")])

It looks at the adapters and changes nothing. What goes wrong in it is said once, as a warning, and ends the recording,
never the training. The first process of several writes. A process that dies leaves an interrupted run.
"""

from __future__ import annotations

import atexit
import shutil
import time
import warnings
from collections.abc import Callable, Mapping
from functools import wraps
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from dynlora import tasks
from dynlora.analysis.learning import LEARNING, message, payload
from dynlora.config import ALL_ROWS, Section, parse_config
from dynlora.custom_loop.attached import evaluated
from dynlora.engine.loop.first_steps import FirstSteps
from dynlora.engine.loop.step_signals import PARAMETERS
from dynlora.errors import ConfigError, checked
from dynlora.integrations.observed import WatchedAdapters, WatchedLayers, ablated, scalings
from dynlora.store.measurements import KNOCKOUT_NAME, keep_knockouts
from dynlora.store.meta import meta_of
from dynlora.store.rows import ModuleRow
from dynlora.store.schema import DB_NAME, run_folder
from dynlora.store.summary import ADAPTER_DIR, CALLBACK, TrainerRun
from dynlora.store.writer import RunWriter

Watched = WatchedAdapters | WatchedLayers
"""What is looked at of a model."""

WATCHED: Mapping[str, Callable[[nn.Module], Watched]] = {
    "adapters": WatchedAdapters,
    "linear": WatchedLayers,
}
"""What can be recorded, by the value of `modules`."""

FULL = "full"
"""Name of the method where the model's own layers are trained."""

RUN_NAME = "dynlora-run.json"
"""File of a Trainer's checkpoint that names the run."""


class Arguments(Section):
    """The numbers that `RecordCallback` takes; their meaning is there."""

    every: int = Field(10, ge=1, description="Steps between two records of norms and effective ranks.")
    modules: Literal["adapters", "linear"] = Field("adapters", description="PEFT's adapters, or every linear layer.")
    ablate_rows: int = Field(0, ge=0, le=ALL_ROWS, description="Held-out examples of the module ablation; 0: none.")


def never_failing(hook: Callable[..., None]) -> Callable[..., None]:
    """Make a hook into one that warns once and ends the recording where it would raise."""

    @wraps(hook)
    def guarded(self: RecordCallback, *arguments: Any, **of: Any) -> None:
        if self.is_broken:
            return
        try:
            hook(self, *arguments, **of)
        except Exception as error:  # training is worth more than its record
            self.is_broken = True
            warnings.warn(f"dynlora records no more of {self.name!r}, and training continues: {error}", stacklevel=2)

    return guarded


class RecordCallback(TrainerCallback):
    """Records what PEFT's adapters do: importance, ranks, norms, effective rank, loss, rate and metrics, step by step.

    Attributes:
        name: of the run, for people.
        folder: of the run once training began; None before, and in every process but the first.
        is_broken: whether recording ended early.

    Examples:
        >>> from dynlora.integrations.transformers import RecordCallback
        >>> callback = RecordCallback("my run")  # Trainer(..., callbacks=[callback]): examples/record.py
        >>> callback.folder is None  # until training begins
        True
        >>> callback.close()  # the end of training does so too; before it, the run counts as interrupted
    """

    def __init__(
        self,
        name: str,
        runs_dir: str | Path = "runs",
        *,
        data: str = "recorded",
        every: int = 10,
        keep_adapter: bool = True,
        ablate_rows: int = 0,
        modules: str = "adapters",
    ) -> None:
        """Record into a new run below `runs_dir`.

        Args:
            name: of the run, for people.
            runs_dir: folder of the runs; made when missing.
            data: name of the data, for people: runs of one name are compared with each other.
            every: steps between two looks at norms and effective ranks.
            keep_adapter: whether the trained adapter is written into the run's folder, for *Shrink* and export.
            ablate_rows: held-out examples on which each module is switched off when training ends; 0 ablates nothing.
                It takes a pass over them for each module.
            modules: adapters, those of PEFT's; or linear, every linear layer of any model, fine-tuned in full or not:
                norms of gradients and updates, and no adapter is kept or ablated.

        Raises:
            ConfigError: when `every` is below 1, `ablate_rows` below 0, or `modules` something else.
        """
        settings = checked(Arguments, {"every": every, "ablate_rows": ablate_rows, "modules": modules})
        has_adapters = settings.modules == "adapters"
        self.keep_adapter, self.ablate_rows = keep_adapter and has_adapters, settings.ablate_rows * has_adapters
        self._watch = WATCHED[settings.modules]
        self.name, self.runs_dir, self.data, self.every = name, Path(runs_dir), data, settings.every
        self.folder: Path | None = None
        self.is_broken = False
        self._writer: RunWriter | None = None
        self._watched: Watched | None = None
        self._first: FirstSteps | None = None
        self._since = 0.0

    @never_failing
    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **of: Any) -> None:
        """Make the run."""
        if not state.is_world_process_zero or self._writer is not None:
            return
        model: nn.Module = of["model"]
        self._watched = self._watch(model)
        self._open(args, state, self._watched, model)
        if self._watched.modules:
            steps, peak = range(state.global_step, state.max_steps), args.learning_rate
            adapters, optimizer = self._watched.modules, of.get("optimizer")
            self._first = FirstSteps(adapters, optimizer, steps, peak_lr=peak, model=model)
        self._since = time.perf_counter()

    def _open(self, args: TrainingArguments, state: TrainerState, watched: Watched, model: nn.Module) -> None:
        """Open the run that the Trainer's checkpoint names where it resumes from one, else a new one."""
        known = TrainerRun.read(_checkpoint(args, state) / RUN_NAME) if state.global_step else None
        if known is not None and (self.runs_dir / known.run / DB_NAME).is_file():
            self.folder = run_folder(self.runs_dir, known.run)
            self._writer = RunWriter.open(self.folder, resume_from=state.global_step)
            self._writer.event(state.global_step, "resume", [], {"step": state.global_step})
        else:
            config = parse_config(_values(self, args, state, model))
            meta = meta_of(config, "code", {}) | _facts(model, watched)
            self.folder = RunWriter.create(
                self.runs_dir, config_yaml=config.to_yaml(), meta=meta, max_steps=state.max_steps, state="running"
            )
            self._writer = RunWriter.open(self.folder, resume_from=None)
            self._define(self._writer, watched)
        atexit.register(self.close)

    def _define(self, writer: RunWriter, watched: Watched) -> None:
        """Say which modules and signals there are, and the ranks at the start."""
        ranks = watched.ranks()
        writer.define_modules([ModuleRow.of(info, rank) for info, rank in zip(watched.infos, ranks, strict=True)])
        for name, unit in watched.units.items():
            writer.define_signal(name, "module", unit, len(ranks))
        writer.vector("rank", 0, [float(rank) for rank in ranks])
        writer.commit()

    @never_failing
    def on_pre_optimizer_step(self, *_: Any, **of: Any) -> None:
        """Look at the gradients: complete, and the weights have not moved."""
        if self._writer is not None and self._watched is not None:
            self._watched.before_step()
            if self._first is not None:
                self._first.before_step()

    @never_failing
    def on_optimizer_step(self, args: TrainingArguments, state: TrainerState, *_: Any, **of: Any) -> None:
        """Look whether the adapters learn, once: the weights have moved, and gradients are still there."""
        symptoms = None if self._first is None else self._first.after_step()
        if self._writer is None or symptoms is None:
            return
        step = state.global_step + 1
        self._writer.event(step, LEARNING, [], payload(symptoms))
        for symptom in symptoms:
            warnings.warn(f"dynlora: {message(symptom, step)}", stacklevel=2)

    @never_failing
    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **of: Any) -> None:
        """Record the step: others may have masked components after the optimizer moved them."""
        if self._writer is None or self._watched is None:
            return
        step = state.global_step
        signals = self._watched.after_step(due=step % self.every == 0 or step == state.max_steps)
        if signals:
            self._record(self._writer, self._watched, step, signals)
        now = time.perf_counter()
        self._writer.scalar("step_ms", "train", step, 1000 * (now - self._since))
        self._since = now
        self._writer.progress(step)

    @staticmethod
    def _record(writer: RunWriter, watched: Watched, step: int, signals: Mapping[str, Tensor]) -> None:
        """Write the signals of a step, and the parameters in use, in one copy from the device."""
        block = torch.stack(list(signals.values())).float().cpu().numpy()  # one copy for all of them
        for name, values in zip(signals, block, strict=True):
            writer.vector(name, step, values)
        if watched.modules:
            ranks = block[list(signals).index("rank")]
            used = sum(float(n) * info.cost for n, info in zip(ranks, watched.infos, strict=True))
            writer.scalar(PARAMETERS, "train", step, used)

    @never_failing
    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: Any = None, **of: Any
    ) -> None:
        """Record loss, rate and norm as the Trainer says them: means over its logging steps."""
        for name, name_here in (("loss", "loss"), ("learning_rate", "lr"), ("grad_norm", "grad_norm_total")):
            if self._writer is not None and isinstance((logs or {}).get(name), int | float):
                self._writer.scalar(name_here, "train", state.global_step, float(logs[name]))

    @never_failing
    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, metrics: Any = None, **of: Any
    ) -> None:
        """Record the metrics of an evaluation."""
        if self._writer is None:
            return
        for name, value in evaluated(metrics or {}).items():
            self._writer.scalar(name, "validation", state.global_step, value)
        self._writer.commit()

    @never_failing
    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **of: Any) -> None:
        """Name the run in the Trainer's checkpoint, so that a resume continues it."""
        if self._writer is not None and self.folder is not None:
            self._writer.commit(durable=True)
            TrainerRun(run=self.folder.name).write(_checkpoint(args, state) / RUN_NAME)

    @never_failing
    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **of: Any) -> None:
        """End the run: finished, or stopped where the Trainer was told to stop early."""
        if self._writer is None or self.folder is None:
            return
        writer, self._writer = self._writer, None
        if self._watched is not None:
            writer.set_meta("params", self._watched.parameters())
        try:
            if self.keep_adapter:
                write_adapter(of["model"], self.folder)
            if self.ablate_rows:
                self._ablate(self.folder, state.global_step, args.seed, of["model"], of.get("eval_dataloader"))
        finally:
            writer.finish("finished" if state.global_step >= state.max_steps else "stopped")

    def _ablate(self, folder: Path, step: int, seed: int, model: nn.Module, batches: Any) -> None:
        """Switch each module off, and keep what the held-out examples lose."""
        if batches is None:
            raise ConfigError("no module was ablated, as the Trainer evaluated nothing; give it an eval_strategy")
        modules = [] if self._watched is None else self._watched.modules
        effects = ablated(model, modules, batches, rows=self.ablate_rows, step=step, seed=seed)
        keep_knockouts(folder / KNOCKOUT_NAME, effects)

    def close(self) -> None:
        """Let go of the run without ending it: it counts as interrupted. Of a run that has ended nothing is left."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None


def write_adapter(model: Any, folder: Path) -> None:
    """Write PEFT's adapter of a model into a run's folder, whole or not at all; weights as safetensors."""
    aside = folder / f".{ADAPTER_DIR}"
    shutil.rmtree(aside, ignore_errors=True)
    model.save_pretrained(aside)
    shutil.rmtree(folder / ADAPTER_DIR, ignore_errors=True)
    aside.rename(folder / ADAPTER_DIR)


def _checkpoint(args: TrainingArguments, state: TrainerState) -> Path:
    return Path(args.output_dir or ".") / f"checkpoint-{state.global_step}"


def _values(run: RecordCallback, args: TrainingArguments, state: TrainerState, model: nn.Module) -> dict[str, Any]:
    """Return the configuration that says the same of the run as the Trainer's arguments do."""
    settings = _peft_config(model)
    rank = int(getattr(settings, "init_r", None) or getattr(settings, "r", 0) or 8)
    method = FULL if settings is None else "adalora" if hasattr(settings, "init_r") else "lora"
    processes = max(1, args.world_size)
    return {
        "name": run.name,
        "seed": int(args.seed) % 2**31,
        "model": {"name": str(getattr(getattr(model, "config", None), "name_or_path", "") or "of a script")},
        "data": {"name": run.data},
        "adapter": {"rank": rank, "alpha": float(getattr(settings, "lora_alpha", 0)) or None},
        "strategy": {"name": method},
        "train": {
            "steps": state.max_steps,
            "batch_size": args.per_device_train_batch_size * processes,
            "grad_accum": args.gradient_accumulation_steps,
            "lr": float(args.learning_rate),
            "weight_decay": float(args.weight_decay),
        },
    }


def _peft_config(model: Any) -> Any:
    """Return the config of the adapter in use, None where the model says none."""
    configs = getattr(model, "peft_config", None)
    if not isinstance(configs, Mapping) or not configs:
        return None
    active = getattr(model, "active_adapter", None)
    return configs.get(active if isinstance(active, str) else next(iter(configs)), next(iter(configs.values())))


def _facts(model: Any, watched: Watched) -> dict[str, Any]:
    """Return what pages ask of a run and only its own training knows elsewhere."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    task = tasks.of_model(base)
    labels = getattr(getattr(base, "config", None), "id2label", None) or {}
    return {
        "recorded_by": CALLBACK,
        "task": task.name,
        "peft_task_type": task.peft_task_type,
        "task_facts": task.facts(),
        "labels": [str(labels[key]) for key in sorted(labels)] if task.trains_head else [],
        "planned_events": 0,
        "params": watched.parameters(),
        "scaling": dict(scalings(watched.modules)),
    }
