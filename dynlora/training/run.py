"""A run from its config to its end: the folder, the writer, the trainer, and what survives a stop or a crash."""

from __future__ import annotations

import logging
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from tqdm import tqdm

from dynlora.config import RunConfig
from dynlora.config_files import read_run_config
from dynlora.engine.adapt import probe_of
from dynlora.engine.loop.adapter_state import checked_state
from dynlora.engine.loop.checkpoint import find_checkpoint, read_checkpoint
from dynlora.engine.loop.hardware import describe_machine, resolve_precision
from dynlora.engine.loop.trainer import Trainer, TrainingStopped
from dynlora.engine.model.modules import find_modules
from dynlora.engine.recorder import NullRecorder
from dynlora.errors import ConfigError, DynloraError
from dynlora.jobs import launch
from dynlora.store.meta import table, whole
from dynlora.store.process import this_process
from dynlora.store.reader import RunReader
from dynlora.store.rows import ModuleRow
from dynlora.store.schema import run_folder
from dynlora.store.stop_request import forget_stop, request_stop
from dynlora.store.writer import RunWriter
from dynlora.training.build import Inputs, build_trainer, load_inputs, make_accelerator
from dynlora.training.checkpoints import RunKeeper
from dynlora.training.progress_stream import QuietStream
from dynlora.training.resumable import Changes, changed_settings, check_resumable, record_changes
from dynlora.training.stop_signal import StopRequest
from dynlora.training.system_stats import Readings

logger = logging.getLogger(__name__)


class RunFailedError(DynloraError):
    """A run ended in an error."""


@dataclass(frozen=True)
class Outcome:
    """How a run ended: finished, stopped or failed, the signal that stopped it (0 for none), and where it lies."""

    folder: Path
    state: str
    signal: int = 0
    error: str | None = None


def train(
    config: RunConfig, runs_dir: Path, *, progress: bool = False, accelerator: Accelerator | None = None
) -> Outcome:
    """Train a new run to its end.

    Raises:
        DynloraError: when something the config names cannot be used; no folder is left then.
    """
    accelerator = accelerator or make_accelerator()
    inputs = load_inputs(config)
    trainer_check(inputs)
    folder = _shared_folder(inputs, runs_dir, accelerator, "running")
    return _run_and_call_the_next(inputs, folder, accelerator, None, progress)


@dataclass(frozen=True)
class PlannedRun:
    """A run that was checked whole and has no folder yet: config, what the store keeps, length, what was loaded."""

    config: RunConfig
    meta: dict[str, Any]
    max_steps: int
    inputs: Inputs

    def create(self, runs_dir: Path, state: str) -> Path:
        """Make the run folder at step 0 and return it."""
        text = self.config.to_yaml()
        return RunWriter.create(runs_dir, config_yaml=text, meta=self.meta, max_steps=self.max_steps, state=state)


def plan(config: RunConfig) -> PlannedRun:
    """Check a config whole; nothing is written.

    Raises:
        DynloraError: when something the config names cannot be used.
    """
    inputs = load_inputs(config)
    trainer_check(inputs)
    return _planned(inputs)


def train_planned(planned: PlannedRun, folder: Path) -> Outcome:
    """Train a checked run in the folder that was made of it, with the model and the data that are loaded already."""
    return _run_and_call_the_next(planned.inputs, folder, make_accelerator(), None, progress=False)


def resume(runs_dir: Path, run_id: str, *, force: bool = False, progress: bool = False) -> Outcome:
    """Go on with a run from its last checkpoint; a queued run starts.

    Raises:
        DynloraError: when the run cannot continue: running, finished, on another host, or its data has changed.
    """
    folder = run_folder(runs_dir, run_id)
    accelerator = make_accelerator()
    with RunReader(folder) as reader:
        status, meta = reader.status(), reader.meta()
    if accelerator.is_main_process:
        check_resumable(run_id, status, force)
    threads = whole(table(meta.get("machine")).get("threads"))
    if threads is not None and 0 < threads <= 1024:
        torch.set_num_threads(threads)
    config = read_run_config(folder)
    changed = changed_settings(run_id, meta.get("config"), config)
    inputs = load_inputs(config)
    if meta.get("data_digest") not in (None, inputs.data.digest):
        raise ConfigError(
            f"resume {run_id}: the data of {inputs.config.data.source} has changed since the run began; "
            "restore the old data, or start a new run"
        )
    place = find_checkpoint(folder / "checkpoint")
    state = checked_state(read_checkpoint(folder / "checkpoint"), "step") if place is not None else None
    if state is not None and state["step"] == 0:
        state = None  # nothing has been trained: everything is recorded from scratch
    return _run_and_call_the_next(inputs, folder, accelerator, state, progress, changed)


def trainer_check(inputs: Inputs) -> None:
    """Refuse targets that match nothing, and a model that the method cannot adapt, before a folder is made.

    Raises:
        ConfigError: when a target matches no module, or the method refuses the model.
    """
    config, base, strategy = inputs.config, inputs.base, inputs.strategy
    infos = find_modules(base.model, config.adapter.targets, base.head)
    rank, alpha = config.adapter.rank, config.adapter.lora_alpha
    probe = probe_of(base, strategy, infos, rank=rank, lora_alpha=alpha, total=inputs.total, seed=config.seed)
    strategy.check_model(infos, probe)


def _planned(inputs: Inputs) -> PlannedRun:
    """Return what is kept of checked inputs."""
    config = inputs.config
    meta = {
        "name": config.title,
        "strategy": config.strategy.name,
        "fidelity": inputs.strategy.fidelity,
        "own_signals": {name: asdict(signal) for name, signal in inputs.strategy.own_signals.items()},
        "model": config.model.name,
        "data": config.data.source,
        "data_digest": inputs.data.digest,
        "data_size": {"train": len(inputs.data.train), "held_out": len(inputs.data.held_out)},
        "metric": inputs.data.metric,
        "labels": inputs.data.labels,
        "task": inputs.data.task.name,
        "peft_task_type": inputs.data.task.peft_task_type,
        "seed": config.seed,
        "config": config.model_dump(mode="json"),
        "planned_events": len(inputs.strategy.events(inputs.total, inputs.config.adapter.rank)),
        "data_warnings": inputs.data.warnings,
        "data_repairs": inputs.data.repaired,
    }
    return PlannedRun(config, meta, inputs.total, inputs)


def _shared_folder(inputs: Inputs, runs_dir: Path, accelerator: Accelerator, state: str) -> Path:
    """Let the first process make the folder, and tell the others."""
    names = [str(_planned(inputs).create(runs_dir, state)) if accelerator.is_main_process else ""]
    if accelerator.num_processes > 1:
        broadcast_object_list(names)
    return Path(names[0])


def _run_and_call_the_next(
    inputs: Inputs,
    folder: Path,
    accelerator: Accelerator,
    state: Mapping[str, Any] | None,
    progress: bool,
    changed: Changes | None = None,
) -> Outcome:
    """Train in a run folder; however that ends, the oldest queued run is started."""
    try:
        return _run(inputs, folder, accelerator, state, progress, changed or {})
    finally:
        if accelerator.is_main_process:
            launch.wake(folder.parent)  # says nothing where the queue is busy or broken: this run's end is what counts


def _run(
    inputs: Inputs,
    folder: Path,
    accelerator: Accelerator,
    state: Mapping[str, Any] | None,
    progress: bool,
    changed: Changes,
) -> Outcome:
    """Train in a run folder, and leave it in the state the run ended in."""
    if not accelerator.is_main_process:
        return _follow(inputs, folder, accelerator, state)
    resume_from = None if state is None else state["step"]
    with RunWriter.open(folder, resume_from=resume_from) as writer, _stop_of(folder) as stop:
        writer.set_meta("machine", describe_machine(accelerator.device, _precision(inputs, accelerator)))
        for repair in inputs.data.repaired:
            writer.log("info", repair)
        for warning in inputs.data.warnings:
            writer.log("warning", warning)
        if state is not None:
            writer.event(state["step"], "resume", [], {"step": state["step"]})
        record_changes(writer, resume_from or 0, inputs.config, inputs.total, changed)
        try:
            outcome = _train_in(inputs, folder, accelerator, writer, state, stop, progress)
        except BaseException as error:
            if not isinstance(error, DynloraError):
                logger.exception("the run failed")
            writer.finish("failed", _reason(error))
            if isinstance(error, Exception):
                return Outcome(folder, "failed", error=_reason(error))
            raise
        writer.finish(outcome.state)
    return outcome


@contextmanager
def _stop_of(folder: Path) -> Iterator[StopRequest]:
    """Remember a stop of the run that this process trains, and make it visible to others, inside the block."""
    me = this_process()
    try:
        with StopRequest(folder.name, lambda: request_stop(folder, me.pid, me.start)) as stop:
            yield stop
    finally:
        forget_stop(folder)


def _train_in(
    inputs: Inputs,
    folder: Path,
    accelerator: Accelerator,
    writer: RunWriter,
    state: Mapping[str, Any] | None,
    stop: StopRequest,
    progress: bool,
) -> Outcome:
    """Build the trainer and train; a stop that was asked for is an outcome, not an error."""
    trainer = build_trainer(inputs, writer, accelerator, state)
    writer.define_modules([_module_row(module) for module in trainer.adapters])
    keeper = RunKeeper(folder, writer, inputs)
    trainer.should_stop = stop
    readings = Readings(writer)
    with tqdm(
        total=trainer.total, initial=trainer.step, disable=not progress, file=QuietStream(sys.stderr), unit="step"
    ) as bar:
        trainer.on_step = lambda trainer: _after_step(bar, readings, trainer)
        try:
            trainer.train(keeper)
        except TrainingStopped:
            keeper.last(trainer)
            return Outcome(folder, "stopped", stop.signal or signal.SIGTERM)
    keeper.last(trainer)
    return Outcome(folder, "finished")


def _follow(inputs: Inputs, folder: Path, accelerator: Accelerator, state: Mapping[str, Any] | None) -> Outcome:
    """Train as one of several processes that write nothing."""
    with StopRequest() as stop:
        trainer = build_trainer(inputs, NullRecorder(), accelerator, state)
        trainer.should_stop = stop
        try:
            trainer.train(RunKeeper(folder, None, inputs))
        except TrainingStopped:
            return Outcome(folder, "stopped", stop.signal or signal.SIGTERM)
    return Outcome(folder, "finished")


def _module_row(module: Any) -> ModuleRow:
    """Return an adapted module as the store describes it."""
    info = module.info
    return ModuleRow(info.name, info.layer, info.kind, info.d_in, info.d_out, module.max_rank)


def _precision(inputs: Inputs, accelerator: Accelerator) -> str:
    """Return the precision the run computes in."""
    return resolve_precision(inputs.config.train.precision, accelerator.device)


def _after_step(bar: Any, readings: Readings, trainer: Trainer) -> None:
    """Move the progress bar on, loss and the deciding metric beside it, and read the machine when that is due."""
    readings.take()
    metric = trainer.evaluation.metric
    shown = {"loss": f"{trainer.loss:.3f}"}
    if metric in trainer.metrics:
        shown[metric] = f"{trainer.metrics[metric]:.3f}"
    bar.set_postfix(shown, refresh=False)
    bar.update(1)


def _reason(error: BaseException) -> str:
    """Return why a run failed, in a line."""
    text = (str(error).strip().splitlines() or [""])[0]
    return text if isinstance(error, DynloraError) else f"{type(error).__name__}: {text}"[:500]
