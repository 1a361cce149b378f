"""Is the process that a run names still the one that wrote it? A pid alone is not trusted: pids are reused."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Collection, Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import ClassVar, NamedTuple, Self

import psutil

from dynlora.store.record import Moment, Record, Whole

START_TOLERANCE_S = 3.0
"""How far two readings of one process's start time may differ, seconds: clocks are stepped while runs continue."""


class Process(NamedTuple):
    """A process on a machine; `start` in seconds since the epoch."""

    pid: int
    start: float
    host: str


class ProcessNote(Record):
    """A file that names a process of this machine; without a pid it names none.

    Attributes:
        pid: of the process.
        start: of the process, seconds since the epoch.
    """

    KEEPS_REST: ClassVar[bool] = True

    pid: Whole | None = None
    start: Moment | None = None

    @classmethod
    def at(cls, path: Path) -> Self:
        """Return what a file says; a missing one names no process."""
        return cls.read(path) or cls()

    @property
    def is_alive(self) -> bool:
        """Whether exactly this process lives."""
        return is_alive(self.pid, self.start)


def host() -> str:
    """Return the name of this machine."""
    return socket.gethostname()


def this_process() -> Process:
    """Return the process that runs this code."""
    return _describe(os.getpid())


@lru_cache(maxsize=4)
def _describe(pid: int) -> Process:
    return Process(pid, psutil.Process(pid).create_time(), host())


def start_time(pid: int) -> float | None:
    """Return when a process started, seconds since the epoch; None when it is gone or a zombie."""
    try:
        process = psutil.Process(pid)
        if process.status() in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD):
            return None
        return process.create_time()
    except (psutil.Error, OSError, ValueError, OverflowError, TypeError):
        return None


def is_alive(pid: int | None, start: float | None) -> bool:
    """Tell whether exactly this process lives: same pid and, within a tolerance, same start; zombies are gone."""
    if pid is None or start is None or not 0 < pid < 2**31:
        return False
    started = start_time(pid)
    return started is not None and abs(started - start) <= START_TOLERANCE_S


def command_line(pid: int) -> list[str]:
    """Return the arguments a process was started with, empty when they cannot be read."""
    try:
        return psutil.Process(pid).cmdline()
    except (psutil.Error, OSError, ValueError, OverflowError):
        return []


def find(command: Sequence[str]) -> tuple[int, float] | None:
    """Return (pid, start) of the process that runs a command, whichever Python runs it; None without one."""
    for process in psutil.process_iter():
        line = command_line(process.pid)
        if line[1:] == list(command[1:]) and (start := start_time(process.pid)) is not None:
            return process.pid, start
    return None


def is_ours(command: Sequence[str], commands: Collection[str]) -> bool:
    """Tell whether a command line is one of dynlora's, as a module or by its script.

    Args:
        command: the command line.
        commands: names of the commands that count.
    """
    names = [os.path.basename(part).removesuffix(".exe") for part in command]
    for place, name in enumerate(names[:-1]):
        is_module = place > 0 and command[place - 1] == "-m"
        is_script = place == 0 or (place == 1 and "python" in names[0].lower())
        if name == "dynlora" and (is_module or is_script) and command[place + 1] in commands:
            return True
    return False


def now() -> float:
    """Return seconds since the epoch."""
    return time.time()


STOP_NAME = "stop.json"


def request_stop(folder: Path, pid: int | None, start: float | None) -> None:
    """Note that the process which writes a run was asked to stop; without room for it, only the note is missing.

    Args:
        folder: of the run.
        pid: of the process.
        start: of the process, seconds since the epoch.
    """
    with suppress(OSError, ValueError):  # what a run says of its process is not trusted
        ProcessNote(pid=pid, start=start).write(folder / STOP_NAME)


def stop_requested(folder: Path, pid: int | None, start: float | None) -> bool:
    """Say whether exactly this process was asked to stop."""
    note = ProcessNote.at(folder / STOP_NAME)
    if note.pid != pid or pid is None or start is None or note.start is None:
        return False
    return abs(note.start - start) <= START_TOLERANCE_S


def forget_stop(folder: Path) -> None:
    """Remove the note, once the run has ended or continues in another process."""
    with suppress(OSError):
        (folder / STOP_NAME).unlink()
