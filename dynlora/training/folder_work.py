"""Work on a run folder from its start to its end, whatever its kind: taken over, stopped, left in a state."""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from dynlora.errors import DynloraError
from dynlora.jobs import launch
from dynlora.jobs.environment import starts_others
from dynlora.store.origin import check_can_resume
from dynlora.store.process import forget_stop, request_stop, stop_requested, this_process
from dynlora.store.reader import RunReader
from dynlora.store.writer import RunWriter
from dynlora.training.resumable import check_resumable
from dynlora.training.stop_signal import StopRequest

logger = logging.getLogger(__name__)


class RunFailedError(DynloraError):
    """A run ended in an error."""


@dataclass(frozen=True)
class Outcome:
    """How a run ended: finished, stopped or failed, the signal that stopped it (0 for none), and where it is."""

    folder: Path
    state: str
    signal: int = 0
    error: str | None = None


Work = Callable[[RunWriter, StopRequest], bool]
"""Does what a run is for and records it; returns True when all is done, False when it stopped because it was asked to.

It looks at the stop between two steps that can be continued later.
"""


def work_on(folder: Path, resume_from: int | None, work: Work) -> Outcome:
    """Do the work of a run folder and leave it in the state that it ended in; then the oldest queued run is started.

    Args:
        folder: of the run, which is queued, or is at a step that it can continue from.
        resume_from: the step it continues from, whose later rows are deleted; None to start over.
        work: what is to be done.

    Raises:
        RunBusyError: when another process writes the run.
        CorruptRunError: when it cannot be read or written.
    """
    try:
        return _worked(folder, resume_from, work)
    finally:
        if starts_others():
            launch.wake(folder.parent)  # says nothing where the queue is busy or broken: this run's end is what counts


def _worked(folder: Path, resume_from: int | None, work: Work) -> Outcome:
    with RunWriter.open(folder, resume_from=resume_from) as writer, stop_of(folder) as stop:
        if resume_from is not None:
            writer.event(resume_from, "resume", [], {"step": resume_from})
        try:
            is_done = not stop() and work(writer, stop)
        except BaseException as error:
            if not isinstance(error, DynloraError):
                logger.exception("the run failed")
            writer.finish("failed", reason(error))
            if isinstance(error, Exception):
                return Outcome(folder, "failed", error=reason(error))
            raise
        writer.finish("finished" if is_done else "stopped")
    return Outcome(folder, "finished") if is_done else Outcome(folder, "stopped", stop.signal or signal.SIGTERM)


@contextmanager
def stop_of(folder: Path) -> Iterator[StopRequest]:
    """Remember a stop of the run that this process works on, and make it visible to others, inside the block."""
    me = this_process()
    try:
        is_asked = partial(stop_requested, folder, me.pid, me.start)
        with StopRequest(folder, lambda: request_stop(folder, me.pid, me.start), is_asked) as stop:
            yield stop
    finally:
        forget_stop(folder)


def check_can_work(folder: Path, force: bool) -> None:
    """Refuse a run that is finished, running, may be running elsewhere, or was fetched without what it continues from.

    Args:
        folder: of the run.
        force: also when another machine claims to be working on it.

    Raises:
        ConfigError: one sentence that says what to do instead.
        CorruptRunError: when it cannot be read.
    """
    with RunReader(folder) as reader:
        status = reader.status()
    check_resumable(folder.name, status, force)
    check_can_resume(folder, status.opened)


def reason(error: BaseException) -> str:
    """Return why a run failed, in a line."""
    text = (str(error).strip().splitlines() or [""])[0]
    return text if isinstance(error, DynloraError) else f"{type(error).__name__}: {text}"[:500]
