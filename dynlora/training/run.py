"""A run from its config to its end: the folder, the writer, the trainer, and what survives a stop or a crash."""

from __future__ import annotations

import logging
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from tqdm import tqdm

from dynlora.config import RunConfig
from dynlora.config_files import read_run_config
from dynlora.engine.adapt import probe_of
from dynlora.engine.loop.adapter_state import checked_state
from dynlora.engine.loop.checkpoint import check_started, find_checkpoint, read_checkpoint
from dynlora.engine.loop.hardware import describe_machine
from dynlora.engine.loop.trainer import Trainer, TrainingStopped
from dynlora.engine.model.base_model import head_parameters
from dynlora.engine.model.chosen_modules import choose_modules
from dynlora.engine.recorder import NullRecorder, Recorder
from dynlora.errors import ConfigError, DynloraError
from dynlora.jobs import launch
from dynlora.jobs.environment import starts_others
from dynlora.jobs.quick_launch import keep_start, kept_start, start_meta
from dynlora.jobs.trackers import TrackerProcess, check_trackers, tracker_process
from dynlora.store.meta import meta_of, table
from dynlora.store.reader import RunReader
from dynlora.store.rows import ModuleRow
from dynlora.store.schema import run_folder
from dynlora.store.summary import FAILED_WITH, check_can_resume
from dynlora.store.writer import RunWriter
from dynlora.training.build import build_trainer, explained, make_accelerator
from dynlora.training.checkpoints import RunCheckpoints
from dynlora.training.folder_work import (
    Changes,
    Outcome,
    RunFailedError,
    changed_settings,
    check_method,
    check_own,
    check_resumable,
    reason,
    record_changes,
    stop_of,
    take_threads,
)
from dynlora.training.initial_adapter import check_start
from dynlora.training.inputs import Inputs, load_inputs
from dynlora.training.progress_stream import QuietStream, Readings, StopRequest


@dataclass(frozen=True)
class PlannedRun:
    """A run that was checked whole and has no folder yet: config, what the store keeps, length, what was loaded.

    `inputs` is None in a sweep, which would hold the model of each of its runs.
    """

    config: RunConfig
    meta: dict[str, Any]
    max_steps: int
    inputs: Inputs | None

    def create(self, runs_dir: Path, state: str) -> Path:
        """Make the run folder at step 0 and return it; an adapter that the run starts from is copied into it."""
        text = self.config.to_yaml()
        return RunWriter.create(
            runs_dir,
            config_yaml=text,
            meta=self.meta,
            max_steps=self.max_steps,
            state=state,
            fill=partial(keep_start, self.config),
        )


def plan(config: RunConfig, start: Path | None = None) -> PlannedRun:
    """Check a config whole; nothing is written.

    Args:
        config: the settings.
        start: where the adapter that the run starts from is kept, if not where the settings say.

    Raises:
        DynloraError: when something the config names cannot be used.
    """
    check_trackers(config.log.to)
    inputs = load_inputs(config, start)
    trainer_check(inputs)
    return planned(inputs)


def plans(configs: Sequence[RunConfig]) -> list[PlannedRun]:
    """Check the configs of a sweep whole, in the order given; what has the same data or model loads it once.

    Raises:
        DynloraError: when something one of them names cannot be used.
    """
    order = sorted(
        range(len(configs)), key=lambda at: (repr(configs[at].model), repr(configs[at].data), configs[at].seed)
    )
    checked: dict[int, PlannedRun] = {}
    inputs = None
    for at in order:
        check_trackers(configs[at].log.to)
        inputs = load_inputs(configs[at], like=inputs)
        trainer_check(inputs)
        checked[at] = replace(planned(inputs), inputs=None)
    return [checked[at] for at in range(len(configs))]


def trainer_check(inputs: Inputs) -> None:
    """Refuse targets that match nothing, and a model that the method cannot adapt, before a folder is made.

    Raises:
        ConfigError: when a target matches no module, the method refuses the model, or given ranks, or an adapter to
            start from, are those of another.
    """
    config, base, strategy = inputs.config, inputs.base, inputs.strategy
    strategy.attach_task(base.task)
    chosen = choose_modules(base, config.adapter.targets)
    chosen.check_gates(strategy.gate_mode())
    rank, alpha = config.adapter.rank, config.adapter.lora_alpha
    probe = probe_of(base, strategy, chosen, rank=rank, lora_alpha=alpha, total=inputs.total, seed=config.seed)
    strategy.check_model(chosen.modules, probe)
    source = strategy.start_source()
    if source is not None:
        check_start(source, inputs.start, config.model.name, inputs.data.labels)
        strategy.given_start().check_rest(head_parameters(base))
    if source is not None or strategy.ranks_source() is not None:
        strategy.ranks(chosen.modules, probe)


def planned(inputs: Inputs) -> PlannedRun:
    """Return what is kept of checked inputs."""
    config = inputs.config
    events = inputs.strategy.events(inputs.total, config.adapter.rank)
    own_signals = {name: asdict(signal) for name, signal in inputs.strategy.own_signals.items()}
    meta = {
        **meta_of(config, inputs.strategy.fidelity, own_signals),
        "data_digest": inputs.data.digest,
        "data_size": {"train": len(inputs.data.train), "held_out": len(inputs.data.held_out)},
        "metric": inputs.data.metric,
        "labels": inputs.data.labels,
        "task": inputs.data.task.name,
        "peft_task_type": inputs.data.task.peft_task_type,
        "task_facts": inputs.data.task.facts(),
        "planned_events": len(events),
        "first_reallocation": events[0] if events else None,
        "data_warnings": inputs.data.warnings,
        "data_repairs": inputs.data.repaired,
        **start_meta(config),
    }
    return PlannedRun(config, meta, inputs.total, inputs)


__all__ = ["Outcome", "RunFailedError", "resume", "train", "train_planned"]

logger = logging.getLogger(__name__)


Load = Callable[[Recorder], Inputs]
"""Loads what a run is made of, and tells the recorder what happens meanwhile."""


def train(
    config: RunConfig, runs_dir: Path, *, progress: bool = False, accelerator: Accelerator | None = None
) -> Outcome:
    """Train a new run to its end.

    Raises:
        DynloraError: when something the config names cannot be used; no folder is left then.
    """
    check_trackers(config.log.to)
    accelerator = accelerator or make_accelerator()
    inputs = load_inputs(config)
    trainer_check(inputs)
    folder = _shared_folder(inputs, runs_dir, accelerator, "running")
    return _run_and_call_the_next(lambda _: inputs, folder, accelerator, None, progress)


def train_planned(planned: PlannedRun, folder: Path) -> Outcome:
    """Train a checked run in the folder that was made of it, with the model and the data where they were kept."""
    inputs = planned.inputs or load_inputs(planned.config)
    return _run_and_call_the_next(lambda _: inputs, folder, make_accelerator(), None, progress=False)


def resume(runs_dir: Path, run_id: str, *, force: bool = False, progress: bool = False) -> Outcome:
    """Continue a run from its last checkpoint; a queued run starts.

    Raises:
        DynloraError: when the run cannot continue: running, finished, on another host, or its data has changed.
    """
    folder = run_folder(runs_dir, run_id)
    accelerator = make_accelerator()
    with RunReader(folder) as reader:
        status, meta = reader.status(), reader.meta()
    check_own(run_id, meta)
    if accelerator.is_main_process:
        check_resumable(run_id, status, force)
        check_can_resume(folder, status.opened)
    take_threads(meta)
    config = read_run_config(folder)
    check_trackers(config.log.to)
    changed = changed_settings(run_id, meta.get("config"), config)
    check_started(folder / "checkpoint")
    checkpoint = find_checkpoint(folder / "checkpoint")
    if checkpoint is not None:
        check_method(run_id, meta.get("config"))
    state = checked_state(read_checkpoint(folder / "checkpoint"), "step") if checkpoint is not None else None
    if state is not None and state["step"] == 0:
        state = None  # nothing has been trained: everything is recorded from scratch

    def load(writer: Recorder) -> Inputs:
        return _loaded_again(writer, folder, config, meta)

    if state is not None or "data_digest" in meta:  # it was loaded before: it stays as it is when it cannot go on
        inputs = load(NullRecorder())
        return _run_and_call_the_next(lambda _: inputs, folder, accelerator, state, progress, changed)
    return _run_and_call_the_next(load, folder, accelerator, state, progress, changed)


def _loaded_again(writer: Recorder, folder: Path, config: RunConfig, meta: Mapping[str, Any]) -> Inputs:
    """Return the inputs of a run that exists; one that was queued unchecked gets what the store keeps of it now.

    Raises:
        DynloraError: when something the config names cannot be used, or the data is not what the run began with.
    """
    writer.log("info", f"Loading the model {Path(config.model.name).name} and the data")
    writer.commit()
    began_in = table(meta.get("machine")).get("precision")
    inputs = load_inputs(config, kept_start(folder), began_in if began_in in ("fp32", "bf16") else None)
    if meta.get("data_digest") not in (None, inputs.data.digest):
        raise ConfigError(
            f"resume {folder.name}: the data of {inputs.config.data.source} has changed since the run began; "
            "restore the old data, or start a new run"
        )
    if "data_digest" not in meta and isinstance(writer, RunWriter):
        trainer_check(inputs)
        known = {**planned(inputs).meta, **({"origin": meta["origin"]} if "origin" in meta else {})}
        for key in sorted(known, key="data_digest".__eq__):  # the digest last: it says that all is there
            writer.set_meta(key, known[key])
        writer.update_max_steps(inputs.total)
    return inputs


def _shared_folder(inputs: Inputs, runs_dir: Path, accelerator: Accelerator, state: str) -> Path:
    """Let the first process make the folder, and tell the others."""
    names = [str(planned(inputs).create(runs_dir, state)) if accelerator.is_main_process else ""]
    if accelerator.num_processes > 1:
        broadcast_object_list(names)
    return Path(names[0])


def _run_and_call_the_next(
    load: Load,
    folder: Path,
    accelerator: Accelerator,
    state: Mapping[str, Any] | None,
    progress: bool,
    changed: Changes | None = None,
) -> Outcome:
    """Train in a run folder; however that ends, the oldest queued run is started, unless a cluster does that."""
    try:
        return _run(load, folder, accelerator, state, progress, changed or {})
    finally:
        if accelerator.is_main_process and starts_others():
            launch.wake(folder.parent)  # says nothing where the queue is busy or broken: this run's end is what counts


def _run(
    load: Load,
    folder: Path,
    accelerator: Accelerator,
    state: Mapping[str, Any] | None,
    progress: bool,
    changed: Changes,
) -> Outcome:
    """Train in a run folder, and leave it in the state the run ended in.

    Raises:
        DynloraError: when its inputs cannot be loaded; the run has failed then.
    """
    if not accelerator.is_main_process:
        return _follow(load(NullRecorder()), folder, accelerator, state)
    resume_from = None if state is None else state["step"]
    inputs: Inputs | None = None
    with (
        tracker_process(folder) as trackers,
        RunWriter.open(folder, resume_from=resume_from) as writer,
        stop_of(folder) as stop,
    ):
        if state is not None:
            writer.event(state["step"], "resume", [], {"step": state["step"]})
        try:
            inputs = load(writer)
            _describe(writer, inputs, accelerator)
            record_changes(writer, resume_from or 0, inputs.config, inputs.total, changed)
            trackers.start(inputs.config.log.to, writer.warn)
            if stop():
                outcome = Outcome(folder, "stopped", stop.signal)
            else:
                outcome = _train_in(inputs, folder, accelerator, writer, state, stop, trackers, progress)
        except BaseException as error:
            if not isinstance(error, DynloraError) and not isinstance(error.__cause__, DynloraError):
                logger.exception("the run failed")
            writer.set_meta(FAILED_WITH, type(error).__name__)
            writer.finish("failed", reason(error))
            if isinstance(error, Exception) and inputs is not None:
                return Outcome(folder, "failed", error=reason(error))
            raise
        writer.finish(outcome.state)
    return outcome


def _describe(writer: RunWriter, inputs: Inputs, accelerator: Accelerator) -> None:
    """Tell the store where a run trains, and what was repaired and is odd about its data."""
    writer.set_meta("machine", describe_machine(accelerator.device, inputs.precision(accelerator.device)))
    for repair in inputs.data.repaired:
        writer.log("info", repair)
    for warning in inputs.data.warnings:
        writer.log("warning", warning)


def _train_in(
    inputs: Inputs,
    folder: Path,
    accelerator: Accelerator,
    writer: RunWriter,
    state: Mapping[str, Any] | None,
    stop: StopRequest,
    trackers: TrackerProcess,
    progress: bool,
) -> Outcome:
    """Build the trainer and train; a stop that was asked for is an outcome, not an error."""
    with explained(inputs.config):
        trainer = build_trainer(inputs, writer, accelerator, state)
    writer.define_modules([ModuleRow.of(module.info, module.max_rank) for module in trainer.adapters])
    keeper = RunCheckpoints(folder, writer, inputs)
    trainer.should_stop = stop
    readings = Readings(writer)
    with tqdm(
        total=trainer.total, initial=trainer.step, disable=not progress, file=QuietStream(sys.stderr), unit="step"
    ) as bar:
        trainer.on_step = lambda trainer: _after_step(bar, writer, readings, trackers, trainer)
        try:
            with explained(inputs.config, while_=lambda: trainer.step == 0):
                trainer.train(keeper)
        except TrainingStopped:
            keeper.last(trainer)
            return Outcome(folder, "stopped", stop.signal or signal.SIGTERM)
    keeper.last(trainer)
    return Outcome(folder, "finished")


def _follow(inputs: Inputs, folder: Path, accelerator: Accelerator, state: Mapping[str, Any] | None) -> Outcome:
    """Train as one of several processes that write nothing."""
    with StopRequest(folder) as stop:
        trainer = build_trainer(inputs, NullRecorder(), accelerator, state)
        trainer.should_stop = stop
        try:
            trainer.train(RunCheckpoints(folder, None, inputs))
        except TrainingStopped:
            return Outcome(folder, "stopped", stop.signal or signal.SIGTERM)
    return Outcome(folder, "finished")


def _after_step(bar: Any, writer: RunWriter, readings: Readings, trackers: TrackerProcess, trainer: Trainer) -> None:
    """Move the progress bar on, loss and the deciding metric beside it; look at machine, time and trackers when due."""
    if readings.take():
        writer.set_meta("time", trainer.timing.medians())
    trackers.look()
    metric = trainer.evaluation.metric
    numbers = {"loss": f"{trainer.loss:.3f}"}
    if metric in trainer.metrics:
        numbers[metric] = f"{trainer.metrics[metric]:.3f}"
    bar.set_postfix(numbers, refresh=False)
    bar.update(1)
