"""What `attach` returns: a strategy on a model that someone else trains, and the same in transformers' Trainer."""

from __future__ import annotations

import atexit
import shutil
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from dynlora import strategies
from dynlora.analysis.learning import LEARNING, Symptom, message, payload
from dynlora.config import RunConfig, parse_config
from dynlora.custom_loop.files import Parts, adapter_form, export_attached, restore, state_of
from dynlora.engine import edits
from dynlora.engine.context import Step
from dynlora.engine.loop.checkpoint import read_checkpoint, write_checkpoint
from dynlora.engine.loop.first_steps import FirstSteps
from dynlora.engine.loop.step_signals import StepSignals
from dynlora.engine.strategy import Strategy
from dynlora.errors import ConfigError, NotMergeableError, storing
from dynlora.safe_files import is_empty, output_folder, path_of
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


class Allocate(TrainerCallback):
    """Takes the steps of an attached strategy where the Trainer takes its own.

    Its state is in each of the Trainer's checkpoints, and is read where the Trainer resumes from one or loads the
    best. Beside it is the adapter as PEFT loads it: `PeftModel.from_pretrained(base, "checkpoint-100")`.
    """

    def __init__(self, attached: Attached) -> None:
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


def _check(attached: Attached, args: TrainingArguments, state: TrainerState, optimizer: Any) -> None:
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


@dataclass
class Attached(Parts):
    """A strategy on a model that someone else trains.

    Call `step()` where the loop would call `optimizer.step()`: gradients complete, and before they are cleared. Of
    transformers' Trainer `callback()` does.

    Examples:
        >>> import torch
        >>> model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.Tanh(), torch.nn.Linear(8, 2))
        >>> attached = dynlora.attach(model, strategy="lora", budget=2, steps=4, targets=["0", "2"])
        >>> record = attached.record("my loop")
        >>> loss = model(torch.randn(16, 8)).square().mean() + attached.penalty()
        >>> loss.backward()
        >>> attached.step(loss)
        []
        >>> record.metrics(1, {"accuracy": 0.9})
        >>> attached.save("state")
        >>> attached.load("state")

        In two parts, around an optimizer step that somebody else takes:

        >>> model(torch.randn(16, 8)).square().mean().backward()
        >>> attached.observe()
        >>> attached.optimizer.step()
        >>> attached.reallocate()
        []
        >>> attached.export("adapter").name
        'adapter'
        >>> record.finish()
        >>> callbacks = [attached.callback()]  # for transformers' Trainer
    """

    recording: LoopRecord | None = None

    def __post_init__(self) -> None:
        """Notice an optimizer that steps while nobody calls `step`, and adapters that do not learn."""
        self.watch = Watch(self.optimizer, lambda: self.index)
        steps = range(self.index, self.total)
        self.first_steps = FirstSteps(self.adapters, self.optimizer, steps, model=self.model)

    def penalty(self) -> Tensor:
        """Return what the strategy adds to the loss; add it before `backward`."""
        terms = self.strategy.penalty(self.adapters)
        device = self.adapters[0].lora_A.device
        return torch.stack(list(terms.values())).sum() if terms else torch.zeros((), device=device)

    def step(self, loss: Tensor | float | None = None) -> list[dict[str, Any]]:
        """Observe, move the weights, reallocate, clear the gradients; return what moved, module by index.

        Args:
            loss: of the step, for `record`; it changes nothing.

        Raises:
            ConfigError: when all steps were taken: schedules and ranks are made for their number.
        """
        self.observe()
        self.optimizer.step()
        made = self.reallocate(loss)
        self.optimizer.zero_grad(set_to_none=True)
        self.adapters.clear_gradients()
        return made

    def observe(self) -> None:
        """Look at the gradients of a step, complete and before the weights move; the first part of `step`.

        Raises:
            ConfigError: when all steps were taken.
        """
        if self.index >= self.total:
            raise ConfigError(
                f"attach(steps={self.total}): all steps were taken, and ranks stay as they are from there on; attach "
                "with as many steps as the loop takes"
            )
        self.index += 1
        self.first_steps.before_step()
        with torch.no_grad():
            self.strategy.observe(self.adapters, self._step())

    def reallocate(self, loss: Tensor | float | None = None) -> list[dict[str, Any]]:
        """Move rank after the optimizer moved the weights, gradients not yet cleared; the last part of `step`."""
        step = replace(self._step(), loss=detached(loss))
        self._look_at_learning()
        if self.recording is not None:
            self.recording.capture_importance()
        with torch.no_grad():
            made = self.strategy.allocate(self.adapters, step)
            edits.apply(self.adapters, made, self.optimizer, step=self.index)
            if self.index == self.total:
                last = self.strategy.finish(self.adapters)
                edits.apply(self.adapters, last, self.optimizer, step=self.index)
                made = [*made, *last]
        if self.recording is not None:
            self.recording.step(step, made)
        self.adapters.streams.at(self.index)  # the next forward draws again
        return edits.describe(made)

    def _look_at_learning(self) -> None:
        """Warn where the adapters do not learn, once, and record it."""
        symptoms = self.first_steps.after_step()
        if symptoms is None:
            return
        if self.recording is not None:
            self.recording.learning(self.index, symptoms)
        for symptom in symptoms:
            warnings.warn(f"dynlora: {message(symptom, self.index)}", stacklevel=3)

    def record(
        self, name: str, runs_dir: str | Path = "runs", *, data: str = "recorded", every: int = 10
    ) -> LoopRecord:
        """Record the steps that follow as a run of the dashboard; `step(loss)` and `record(...).metrics` add numbers.

        Args:
            name: of the run, for people.
            runs_dir: folder of the runs; made when missing.
            data: name of the data, for people: runs of one name are compared with each other.
            every: steps between two looks at norms and effective ranks.

        Raises:
            ConfigError: when it is recorded already, or a value breaks a rule.
            StorageError: when the run cannot be made.
        """
        if self.recording is not None:
            raise ConfigError(f"record({name!r}): the steps are recorded already, in {self.recording.folder.name}")
        self.recording = LoopRecord(self, name, path_of("runs_dir", runs_dir), data, every)
        return self.recording

    def callback(self) -> Allocate:
        """Return the callback that takes these steps in transformers' Trainer, which must be given the optimizer too.

        `Trainer(model=attached.model, optimizers=(attached.optimizer, None), callbacks=[attached.callback()])`
        """
        self.watch.is_driven = True
        return Allocate(self)

    def _step(self) -> Step:
        return Step(self.index, self.total, float(self.optimizer.param_groups[0]["lr"]))

    def save(self, folder: str | Path) -> None:
        """Write adapters, head, moments and the strategy's state, so that `load` resumes to the bit.

        Tensors as safetensors, the rest as JSON. What else the loop needs, such as a schedule or the state
        of torch's random numbers, is its own to keep.

        Args:
            folder: made, or replaced as a whole where it is empty or was written by `save`.

        Raises:
            ConfigError: when something else is there, which would be lost.
            StorageError: when it cannot be written.
        """
        output_folder(
            path_of("folder", folder), "save:", lambda path: is_empty(path) or (path / "state.json").is_file()
        )
        with storing(f"the state at {folder}"):
            Path(folder).absolute().parent.mkdir(parents=True, exist_ok=True)
            write_checkpoint(Path(folder).absolute(), state_of(self))

    def load(self, folder: str | Path) -> None:
        """Continue from what `save` wrote; the model and the arguments of `attach` must be the same.

        Raises:
            ConfigError: when it was saved with another strategy, number of steps or budget.
            CorruptRunError: when there is nothing saved, or it belongs to another model.
        """
        restore(self, read_checkpoint(path_of("folder", folder).absolute()))

    def export(
        self,
        folder: str | Path,
        batches: Iterable[Mapping[str, Tensor]] = (),
        *,
        form: str = "peft",
        ranks: str | None = None,
    ) -> Path:
        """Write the adapter for others to load, and return its folder; the model trains on unchanged.

        Args:
            folder: new or empty.
            batches: rows whose gates are averaged, where the strategy has gates: an exported adapter has none. Those
                that calibrated the gates are taken where none are given.
            form: peft, gguf, ollama or mlx, as `dynlora export --format` has them.
            ranks: of the form peft: as-trained, each module with its own, or uniform, one for all.

        Raises:
            ConfigError: when the folder is taken, the form is no adapter, or gates are to be averaged over nothing.
            NotMergeableError: when the form cannot hold the update.
            StorageError: when it cannot be written.
        """
        rows = [dict(batch) for batch in batches] or self.calibration
        return export_attached(self, path_of("folder", folder), rows, adapter_form(form, ranks))


PATIENCE = 2
"""Steps of the optimizer without one of the strategy's, from which it is said."""


class Watch:
    """Counts the optimizer's steps beside those of the strategy.

    Attributes:
        is_driven: whether a callback takes the strategy's steps.
    """

    def __init__(self, optimizer: Optimizer, steps: Callable[[], int]) -> None:
        """Watch `optimizer`; `steps` tells how many the strategy took."""
        self.is_driven = False
        self._steps, self._taken, self._said = steps, 0, False
        optimizer.register_step_post_hook(self._count)

    def _count(self, *_: Any) -> None:
        self._taken += 1
        if self._taken >= PATIENCE and not self._steps() and not self._said:
            self._said = True
            how = (
                "the Trainer was not given its callback: callbacks=[attached.callback()]"
                if not self.is_driven
                else "the callback was made and never called: give it to the Trainer"
            )
            warnings.warn(
                "attached.optimizer steps, and the strategy does not: no rank moves. Call attached.step() in the place "
                f"of optimizer.step(), or, with transformers' Trainer, {how}",
                stacklevel=2,
            )
