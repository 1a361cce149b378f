"""Processes that help pages and runs: one record says what each does, how far it is, what came out, or why it failed.

Whoever starts a process names the file of its record in its environment; the process takes it up (`attach`) and is from
then on the only one who writes it. Nobody reads what a process prints. What a user chose travels in files, never on a
command line.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from pydantic import Field

from dynlora import errors
from dynlora.errors import DynloraError, SearchError, StorageError, first_line, storing, system_error
from dynlora.jobs import warm
from dynlora.jobs.environment import JOB_VARIABLE
from dynlora.jobs.spawn import end_child, reap, run_or_leave, spawn_detached
from dynlora.store.lifecycle import command_line, is_alive, now, start_time
from dynlora.store.record import Count, Moment, Part, Record, Row, Whole

ENDING = ".job"
"""Of a record's file; the other files of a job have its name and endings of their own."""

FILES = (ENDING, ".json", ".log", ".yaml", ".zip", ".pid")
"""Endings of the files of a job: record, answer, output, request, export; an earlier version wrote .pid."""

TAKES_UP_S = 5.0
"""Seconds within which whoever started a process has written its record."""

SILENT = "its process exited without an error message"


class Progress(Part):
    """How far a job is.

    Attributes:
        done, of: in steps of its own; 0 of 0 before it knows.
        phase: what it does now.
    """

    done: Count = 0
    of: Count = 0
    phase: str = ""


class Failure(Part):
    """Why a job failed.

    Attributes:
        kind: name of the class of `dynlora.errors`; empty for a defect.
        message: for a person.
    """

    kind: str
    message: str

    @classmethod
    def of(cls, error: BaseException) -> Self:
        """Return what is kept of an error."""
        known = (one for one in type(error).__mro__ if one.__module__ == errors.__name__ and one is not SearchError)
        kind = next(known, None if system_error(error) is None else StorageError)
        return cls(kind=kind.__name__ if kind else "", message=str(error) if kind else first_line(error))

    def exception(self) -> DynloraError:
        """Return the error again."""
        kind: object = getattr(errors, self.kind, None)
        if isinstance(kind, type) and issubclass(kind, DynloraError):
            return kind(self.message)
        return DynloraError(self.message)


class HelperJob(Record):
    """A helper process, as its file says.

    Attributes:
        kind: advice, search, check, export, compress or ablation.
        command: that was started, an argument list.
        status: running, done, failed or cancelled.
        progress: how far it is.
        message: its result in words.
        result: its result, a JSON value; None where a file that was asked for holds it.
        error: why it failed.
        pid, start: of its process, None before it runs; start in seconds since the epoch.
        heartbeat: when it was written last, seconds since the epoch.
    """

    MAX_BYTES: ClassVar[int] = 16_000_000
    VERSION: ClassVar[int] = 1

    kind: str
    command: Row[str] = Field(default=(), max_length=100)
    status: Literal["running", "done", "failed", "cancelled"] = "running"
    progress: Progress = Progress()
    message: str = ""
    result: Any = None
    error: Failure | None = None
    pid: Whole | None = None
    start: Moment | None = None
    heartbeat: Moment = 0

    @property
    def is_alive(self) -> bool:
        """Whether its process lives."""
        return is_alive(self.pid, self.start)

    def having(self, **changes: Any) -> Self:
        """Return the record with changes, and the time of them."""
        return self.model_copy(update={**changes, "heartbeat": now()})

    def of_process(self, pid: int) -> Self:
        """Return the record with its process."""
        return self.having(pid=pid, start=start_time(pid))


# --- whoever starts a process


def start(kind: str, command: list[str], place: Path) -> None:
    """Start a process that outlives this one.

    Args:
        kind: of the job.
        command: of dynlora's.
        place: its record; its output goes beside it.

    Raises:
        StorageError: when the disk does not take the record; the process is ended then.
        OSError: when it cannot be started.
    """
    for file in (place, place.with_suffix(".log")):
        file.unlink(missing_ok=True)
    pid = spawn_detached(command, place.with_suffix(".log"), job=place)
    try:
        with storing(f"the record of the process for {kind}"):
            HelperJob(kind=kind, command=tuple(command)).of_process(pid).write(place)
    except StorageError:
        end_child(pid)
        raise


def follow(place: Path) -> HelperJob | None:
    """Return how a job stands, None where there is none; one whose process is gone has failed."""
    reap()
    job = HelperJob.read(place)
    if job is not None and job.status == "running" and not job.is_alive:
        job = HelperJob.read(place) or job  # it may have ended between the two
        if job.status == "running":
            return job.model_copy(update={"status": "failed", "error": Failure(kind="", message=SILENT)})
    return job


def cancel(place: Path) -> None:
    """End a job that runs, whichever server started it."""
    job = follow(place)
    if job is None or job.status != "running" or job.pid is None:
        return
    end_child(job.pid)
    command = list(job.command)
    if job.is_alive and warm.is_ours(command) and command_line(job.pid) == command:  # a record is not trusted
        with suppress(OSError):
            os.kill(job.pid, signal.SIGTERM)
    with suppress(OSError):
        (HelperJob.read(place) or job).having(status="cancelled").write(place)


def forget(place: Path) -> None:
    """Remove all files of a job that has ended."""
    for ending in FILES:
        place.with_suffix(ending).unlink(missing_ok=True)


def forget_oldest(places: Iterable[Path], most: int) -> None:
    """Remove the oldest jobs that have ended, so that a folder does not grow for ever: of each a file, `most` stay."""
    for place in sorted(places, key=lambda path: path.lstat().st_mtime, reverse=True)[most:]:
        job = follow(place.with_suffix(ENDING))
        if job is None or job.status != "running":
            forget(place)


def run(kind: str, command: list[str], timeout_s: float, failed: str) -> Any:
    """Run a command of dynlora's, wait until it ends or continues alone, and return its result.

    Args:
        kind: of the job.
        command: what to run.
        timeout_s: seconds to wait for it.
        failed: what did not happen when it fails, such as `the run was not queued`.

    Raises:
        DynloraError: of the class and with the sentence of the process; or when it takes too long or ends without one.
    """
    with tempfile.TemporaryDirectory(prefix="dynlora-job-") as folder:
        place = Path(folder) / f"{kind}{ENDING}"
        with storing(f"the record of the process for {kind}"):
            HelperJob(kind=kind, command=tuple(command)).write(place)
        try:
            ended = run_or_leave(command, timeout_s, place)
        except subprocess.TimeoutExpired:
            raise DynloraError(f"{failed}: it took longer than {timeout_s:.0f} s; try again") from None
        except OSError as error:
            raise DynloraError(f"{failed}: its process cannot be started ({error.strerror})") from None
        job = HelperJob.read(place)
    if job is not None and job.error is not None and job.error.kind:
        raise job.error.exception()
    if job is None or job.status != "done":
        output = ended.stderr.decode("utf-8", "replace").strip()[-4000:]
        raise DynloraError(f"{failed} (exit {ended.returncode}): {output or 'no output'}")
    return job.result


# --- the process itself


class _Own:
    """The record of this process, where it has one."""

    place: Path | None = None
    job: HelperJob | None = None

    def write(self, **changes: Any) -> None:
        """Write changes; what the disk does not take is missing, and the work continues."""
        if self.place is not None and self.job is not None:
            self.job = self.job.having(**changes)
            with suppress(OSError, ValueError):
                self.job.write(self.place)


_own = _Own()


def attach() -> None:
    """Take up the record that the environment names, so that processes which this one starts have none of it."""
    place = os.environ.pop(JOB_VARIABLE, "")
    deadline = time.monotonic() + TAKES_UP_S
    while place and (job := HelperJob.read(place)) is None and time.monotonic() < deadline:
        time.sleep(0.01)
    if place and job is not None:
        _own.place, _own.job = Path(place), job.of_process(os.getpid())
        _own.write()


def tell(done: int, of: int, phase: str) -> None:
    """Say how far this process is; nothing where nobody follows it."""
    _own.write(progress=Progress(done=done, of=of, phase=phase[:500]))


def finish(result: Any, message: str) -> None:
    """Hand over the result of this process, once; it may continue with something else.

    Args:
        result: as `--json` prints it; None where a file that was asked for holds it.
        message: in words.
    """
    if _own.place is not None:
        text = json.dumps(result, default=str)
        plain = json.loads(text, parse_constant=lambda _: None)  # null in the place of what is no number
        _own.write(status="done", result=plain, message=message)
        _own.place = None


def fail(error: Exception, message: str = "") -> None:
    """Say why this process fails, with a message for a person where it is another one than the error's own."""
    failure = Failure.of(error)
    _own.write(status="failed", error=failure.model_copy(update={"message": message or failure.message}))
    _own.place = None
