"""Work on a run folder from its start to its end, whatever its kind: taken over, stopped, left in a state."""

from __future__ import annotations

import logging
import os
import platform
import re
import shutil
import signal
import sys
import tempfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import psutil

from dynlora.errors import ConfigError, DynloraError, storing
from dynlora.jobs import launch
from dynlora.jobs.environment import starts_others
from dynlora.safe_files import is_empty, making_folder, output_folder
from dynlora.store.origin import check_can_resume
from dynlora.store.process import forget_stop, request_stop, stop_requested, this_process
from dynlora.store.reader import RunReader
from dynlora.store.writer import RunWriter
from dynlora.training.progress_stream import StopRequest
from dynlora.training.resumable import check_resumable

LEFT = f".dynlora-export-{re.sub('[^0-9A-Za-z]+', '-', platform.node())[:40]}-"
"""How a folder that is being written is called, before the number of its process: a killed one leaves it."""

ARCHIVE = ".zip"
"""Ending of an `out` that is written as one file."""

OTHER_ARCHIVES = (".tar", ".tar.gz", ".tgz", ".tar.xz", ".tar.bz2", ".7z", ".rar")
"""Endings of archives that are not written: a folder of such a name would be taken for one."""


def check_out(out: Path) -> Path:
    """Return the place that is written to.

    Raises:
        ConfigError: when something is there already, but for an empty folder.
    """
    if str(out) == "-":
        raise ConfigError("--out -: an adapter is a folder or a .zip file, not one text; give a name")
    if out.name.lower().endswith(OTHER_ARCHIVES):
        raise ConfigError(f"--out {out}: archives are written as .zip; give such a name, or that of a folder")
    return output_folder(out, "--out", None if out.suffix.lower() == ARCHIVE else is_empty)


@contextmanager
def staged(out: Path) -> Iterator[Path]:
    """Lend an empty folder beside `out`, and put what was written there in its place when all went well.

    Raises:
        ConfigError: when something is there already, but for an empty folder.
        StorageError: when the disk refuses what is written in the block, or the place.
    """
    target = check_out(out)
    is_archive = target.suffix.lower() == ARCHIVE
    with storing(f"the export to {out}"), making_folder(target.parent), _ended_in_order():
        _remove_left(target.parent)
        staging = Path(tempfile.mkdtemp(prefix=f"{LEFT}{os.getpid()}-", dir=target.parent))
        try:
            yield staging
            (_place_archive if is_archive else _place_folder)(staging, target)
        finally:
            shutil.rmtree(staging, ignore_errors=True)


@contextmanager
def _ended_in_order() -> Iterator[None]:
    """Let SIGTERM end the process by way of every `finally` for a block; a handler of somebody else's stays."""
    is_ours = (
        threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    )
    if is_ours:
        signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        yield
    finally:
        if is_ours:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _remove_left(parent: Path) -> None:
    """Remove what exports into the same folder left there when their processes on this machine were killed."""
    for entry in parent.glob(f"{LEFT}*"):
        pid = entry.name.removeprefix(LEFT).partition("-")[0]
        if pid.isdecimal() and not psutil.pid_exists(int(pid)):
            shutil.rmtree(entry, ignore_errors=True)


def _place_folder(staging: Path, out: Path) -> None:
    """Put the files in their place, all or none: a new folder by one rename, an empty one that is there file by file.

    The empty folder stays the one it is: it may be a disk of its own, or somebody's working directory.
    """
    if not out.exists():
        out.mkdir()
        staging.chmod(out.stat().st_mode & 0o777)  # a folder for the time being is its owner's alone
        staging.rename(out)
        return
    moved: list[Path] = []
    try:
        for path in sorted(staging.iterdir()):
            moved.append(out / path.name)
            shutil.move(path, moved[-1])
    except OSError:
        for path in moved:
            path.unlink(missing_ok=True)
        raise


def _place_archive(staging: Path, out: Path) -> None:
    """Pack the files, not compressed: weights do not get smaller."""
    partial = staging / "archive"
    with zipfile.ZipFile(partial, "x") as archive:
        for path in sorted(staging.iterdir()):
            if path != partial:
                archive.write(path, f"{out.stem}/{path.name}")
    partial.rename(out)


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
