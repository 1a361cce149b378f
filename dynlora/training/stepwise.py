"""Work taken step by step: checkpoints, progress, and what survives a stop or a crash; for several kinds of run."""

from __future__ import annotations

import logging
import shutil
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol, TypeVar

from tqdm import tqdm

from dynlora.engine.loop.adapter_state import adapter_state
from dynlora.engine.loop.checkpoint import check_started, find_checkpoint, read_checkpoint, write_checkpoint
from dynlora.engine.model.adapters import Adapters
from dynlora.errors import CorruptRunError, StorageError
from dynlora.store.meta import whole
from dynlora.store.reader import RunReader
from dynlora.store.schema import command_text
from dynlora.store.writer import RunWriter
from dynlora.training.folder_work import Outcome, check_can_work, take_threads, work_on
from dynlora.training.progress_stream import QuietStream, Readings, StopRequest

logger = logging.getLogger(__name__)

CHECKPOINTS = 20
"""Checkpoints of a run, those at its stops aside."""

PROBES = 2
"""Steps that are timed for an estimate, after one to warm up."""


class Stepwise(ABC):
    """What is done in steps, each of them recorded.

    Attributes:
        step: steps done, of all stages together.
    """

    step: int

    @property
    @abstractmethod
    def stages(self) -> list[dict[str, Any]]:
        """The stages with their `name`, `first` and `last` step; the step before `first` is done when one begins."""

    @property
    def total(self) -> int:
        """Steps of all stages."""
        return int(self.stages[-1]["last"])

    @property
    def is_done(self) -> bool:
        """Whether all steps are taken."""
        return self.step >= self.total

    def stage(self) -> str:
        """Return the stage that the next step belongs to."""
        return str(next(stage["name"] for stage in self.stages if self.step < stage["last"]))

    @abstractmethod
    def advance(self) -> None:
        """Take one step and record it."""

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """Return everything a bit-equal continuation needs."""

    @abstractmethod
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a saved state."""


class Testing(Protocol):
    """What a run of steps is measured by at its end."""

    def measure(self) -> Iterator[str]:
        """Measure one thing after the other; yields the name of each before it is measured."""
        ...

    def document(self, run_id: str) -> dict[str, Any]:
        """Return the results, with `notes`: what a person should know, in sentences."""
        ...


Steps = TypeVar("Steps", bound=Stepwise)


def run_steps(
    folder: Path,
    load: Callable[[RunWriter], Steps],
    finish: Callable[[Steps, RunWriter, StopRequest], bool],
    *,
    begin: Callable[[Steps, RunWriter], None] = lambda *_: None,
    force: bool = False,
    progress: bool = False,
    is_new: bool = False,
) -> Outcome:
    """Start a run, or continue it from its last checkpoint; a finished one keeps none.

    Args:
        folder: of the run.
        load: makes the work at its first step.
        finish: measures and keeps the results after the last step; False when it was asked to stop meanwhile.
        begin: tells the store what the work is, before the steps that are left.
        force: also when another machine claims to be working on it.
        progress: draw a bar on the terminal.
        is_new: whether the folder was made for this call.

    Raises:
        ConfigError: when it is finished, running, or may be running elsewhere.
        CorruptRunError: when it cannot be read.
    """
    if not is_new:
        check_can_work(folder, force)
    state = _saved_state(folder)

    def work(writer: RunWriter, stop: StopRequest) -> bool:
        steps = load(writer)
        if state is not None:
            steps.load_state_dict(state)
        begin(steps, writer)
        writer.update_max_steps(steps.total)
        writer.commit()
        return _take_steps(steps, writer, stop, progress=progress) and finish(steps, writer, stop)

    outcome = work_on(folder, None if state is None else state["step"], work)
    if outcome.state == "finished":  # not earlier: a crash before the end is stored continues from it
        for name in ("checkpoint", ".checkpoint.old"):  # the second is what a crash left aside
            shutil.rmtree(folder / name, ignore_errors=True)
    return outcome


def _saved_state(folder: Path) -> Mapping[str, Any] | None:
    """Return the state that a run continues from, its threads set; None where it starts."""
    with RunReader(folder) as reader:
        take_threads(reader.meta())
    check_started(folder / "checkpoint")
    if find_checkpoint(folder / "checkpoint") is None:
        return None
    state = read_checkpoint(folder / "checkpoint")
    step = whole(state.get("step"))
    if step is None:
        raise CorruptRunError(f"run {folder.name}: its checkpoint is damaged; remove it to start over")
    return {**state, "step": step} if step else None


def _take_steps(work: Stepwise, writer: RunWriter, stop: StopRequest, *, progress: bool) -> bool:
    """Take the steps that are left, with checkpoints; False when asked to stop before the last one."""
    every, readings = max(1, work.total // CHECKPOINTS), Readings(writer)
    if work.step == 0:
        _keep(work, writer)
    stage, begun = "", time.monotonic()
    with tqdm(
        total=work.total, initial=work.step, disable=not progress, file=QuietStream(sys.stderr), unit="step"
    ) as bar:
        while not work.is_done:
            if work.stage() != stage:
                stage = work.stage()
                writer.log("info", f"Stage {stage}, from step {work.step + 1:,} of {work.total:,}")
            work.advance()
            readings.take()
            bar.update(1)
            if stop() or work.step % every == 0 or work.is_done:
                writer.set_meta("time", {"train_s": time.monotonic() - begun})
                _keep(work, writer)
            if stop() and not work.is_done:
                return False
    return True


def fastest_s(step: Callable[[], object]) -> float:
    """Return the seconds of the fastest of a few steps after one to warm up: others may share the machine."""
    step()
    seconds = []
    for _ in range(PROBES):
        start = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def tell_estimate(writer: RunWriter, estimate: Mapping[str, Any]) -> None:
    """Record how long the work will take (`minutes`, and what else was counted) and say so."""
    message = f"about {estimate['minutes']:.1f} minutes, and the test after that"
    writer.set_meta("estimate", dict(estimate))
    writer.log("info", message.capitalize())
    logger.info("%s: %s", writer.folder.name, message)


def results_of(testing: Testing, writer: RunWriter, stop: StopRequest) -> dict[str, Any] | None:
    """Return the results of the finished steps, their notes logged; None when asked to stop meanwhile."""
    for what in testing.measure():
        writer.log("info", f"Testing: {what}")
        writer.commit()
        if stop():
            return None
    document = testing.document(writer.folder.name)
    for note in document["notes"]:
        writer.log("warning", note)
    return document


def keep_adapter(adapters: Adapters, writer: RunWriter, **about: Any) -> None:
    """Write the adapter that the work was for, and what else its reader needs, all safe on the disk.

    Raises:
        OSError: when the disk does not take it; the checkpoint is still there then.
    """
    write_checkpoint(
        writer.folder / "adapter", {"adapters": adapter_state(adapters), "head": {}, "labels": [], **about}
    )
    writer.commit(durable=True)


def _keep(work: Stepwise, writer: RunWriter) -> None:
    """Keep the whole state, after what is recorded is safe on the disk.

    Raises:
        StorageError: when the first one cannot be written; a later one is a warning.
    """
    try:
        writer.commit(durable=True)
        write_checkpoint(writer.folder / "checkpoint", work.state_dict())
    except OSError as error:
        message = f"the checkpoint of step {work.step} cannot be written ({error.strerror or error})"
        if work.step == 0:
            again = command_text("resume", writer.folder.name, runs_dir=writer.folder.parent)
            raise StorageError(f"{message}; free some space, then {again}") from None
        writer.warn(f"{message}; the work continues, and the last one is still valid")
        return
    writer.set_meta("checkpoint_step", work.step)
