"""A warm spare: one process that has imported torch and waits to become a command of dynlora's.

A command that needs torch spends most of its first seconds on imports. The server of the dashboard keeps one process
that has them behind it while a page is open that may need it. The spare reads one command from its standard input, ends
when that is closed, and is used once: nothing of one command is left for the next. Before the command it may be told
which model and data are likely to come: it makes tokens of the texts then.
"""

from __future__ import annotations

import atexit
import json
import os
import signal
import subprocess
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

from dynlora.jobs.environment import WARM_VARIABLE, child_environment, python_command

ROOM = 2 * 2**30
"""Bytes of memory that must be free for a spare to be started; it takes about a quarter of them."""

IDLE_S = 600.0
"""Seconds after which a spare that no page asked for is ended."""

RENEW_S = 20.0
"""Seconds between the start of a command and that of the next spare, which would compete with it."""

TAKES_S = 5.0
"""Seconds within which a spare says that it has read its command; the queue may be locked meanwhile."""

TAKEN = b"taken\n"
"""What it says then, before anything that the command prints."""

TELLINGS, LONGEST_LINE = 12, 4096
"""How often a spare is told what is likely to come, and bytes of one telling: a pipe takes them all from nobody."""

_ENTRY = python_command("dynlora")


def warm_command() -> list[str]:
    """Return the command of a spare; nothing of a user's is in it."""
    return [*_ENTRY, "warm"]


class Spare:
    """A process that has begun to import, or has done so, and waits."""

    def __init__(self) -> None:
        """Start the process, detached: whatever it becomes may outlive this one.

        Raises:
            OSError: when it cannot be started.
        """
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(
            warm_command(), stdin=pipe, stdout=pipe, stderr=pipe, env=child_environment(), start_new_session=True
        )

        self._told: list[bytes] = []

    @property
    def is_alive(self) -> bool:
        """Whether the process is still there."""
        return self.process.poll() is None

    def expect(self, values: Mapping[str, Any]) -> None:
        """Tell the process which configuration is likely to come; it may make use of that."""
        line = json.dumps({"likely": values}, sort_keys=True).encode() + b"\n"
        if line in self._told[-1:] or len(self._told) == TELLINGS or len(line) > LONGEST_LINE:
            return
        self._told.append(line)
        with suppress(OSError, ValueError):  # a process that has ended is found out when it is needed
            self.process.stdin.write(line)  # pyright: ignore
            self.process.stdin.flush()  # pyright: ignore

    def become(self, command: list[str], *, log: Path | None = None, job: Path | None = None) -> bool:
        """Let the process run a command of dynlora's, and say whether it took it.

        Args:
            command: as it would be started.
            log: plain file that takes what it says; None: its pipes do.
            job: the record that a helper process is given.
        """
        files = {"log": log and str(log), "job": job and str(job)}
        order = {"arguments": command[len(_ENTRY) :], **files}
        source = self.process.stdin
        try:
            source.write(json.dumps(order).encode() + b"\n")  # pyright: ignore
            source.flush()  # pyright: ignore
            taken = self._is_taken()
        except (OSError, ValueError):
            taken = False
        if not taken:
            self.end()
            return False
        self._close("stdin")
        if log is not None:
            self._close("stdout")
            self._close("stderr")
        return True

    def _is_taken(self) -> bool:
        """Wait until the process says that it has read the command; one that is dying, or hangs, does not.

        Read byte by byte from the descriptor: what the command itself prints follows, and is read by others.
        """
        watchdog = threading.Timer(TAKES_S, self.process.kill)
        watchdog.start()
        try:
            received = b""
            while len(received) < len(TAKEN) and (byte := os.read(self.process.stdout.fileno(), 1)):  # pyright: ignore
                received += byte
            return received == TAKEN
        finally:
            watchdog.cancel()

    def end(self) -> None:
        """End the process."""
        with suppress(OSError):
            self.process.kill()
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(10)
        for name in ("stdin", "stdout", "stderr"):
            self._close(name)

    def _close(self, name: str) -> None:
        """Close one of the pipes, and let `communicate` know that it is not there."""
        stream = getattr(self.process, name)
        setattr(self.process, name, None)
        if stream is not None:
            with suppress(OSError):
                stream.close()


class Keeper:
    """Keeps at most one spare for this process; safe to call from several threads."""

    def __init__(self) -> None:
        """Keep none yet."""
        self._lock = threading.Lock()
        self._spare: Spare | None = None
        self._is_pausing = False
        self._timer: threading.Timer | None = None
        self._likely: Mapping[str, Any] | None = None

    @property
    def pid(self) -> int | None:
        """Process id of the spare, None while there is none."""
        spare = self._spare
        return spare.process.pid if spare is not None and spare.is_alive else None

    def keep(self, likely: Mapping[str, Any] | None = None) -> None:
        """Have a spare, where one is wanted and there is room for it; a page that may need one calls this.

        While the last one has only begun its command, none is started: a page is drawn again just then.

        Args:
            likely: values of the configuration that may come next; None: what was said last.
        """
        if not is_wanted():
            return
        with self._lock:
            self._likely = self._likely if likely is None else likely
            if self._is_pausing:
                return
            self._later(IDLE_S, self.drop)
            if self.pid is None:
                with suppress(OSError):  # what cannot be started now is missed later, and started as usual
                    self._spare = Spare()
            if self._spare is not None and self._likely is not None:
                self._spare.expect(self._likely)

    def renew(self) -> None:
        """Have a spare again: nothing competes with it any more."""
        with self._lock:
            self._is_pausing = False
        self.keep()

    def take(self) -> Spare | None:
        """Return the spare, which is the caller's from now on; None without one. Another one is started later."""
        with self._lock:
            spare, self._spare = self._spare, None
            if spare is None:
                return None
            self._is_pausing = True
            self._later(RENEW_S, self.renew)
            if spare.is_alive:
                return spare
        spare.end()
        return None

    def drop(self) -> None:
        """End the spare."""
        with self._lock:
            spare, self._spare = self._spare, None
        if spare is not None:
            spare.end()

    def _later(self, seconds: float, act: object) -> None:
        """Do one thing later; what was to be done before is forgotten."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = threading.Timer(seconds, act)  # pyright: ignore[reportArgumentType]
        self._timer.daemon = True
        self._timer.start()


KEEPER = Keeper()
"""What this process keeps: one spare for all viewers of a server."""


def is_wanted() -> bool:
    """Say whether processes are to be kept warm, and there is room for one."""
    return os.environ.get(WARM_VARIABLE) == "1" and psutil.virtual_memory().available >= ROOM


def started(command: list[str], job: Path | None = None) -> subprocess.Popen[bytes]:
    """Return a process that runs a command, its output in pipes: the spare where there is one, else a new one.

    The process is detached: it outlives this one and the terminal. It has no input.

    Args:
        command: to run; only one of dynlora's can be run by the spare.
        job: the record that a helper process is given.

    Raises:
        OSError: when it cannot be started.
    """
    spare = KEEPER.take() if is_ours(command) else None
    if spare is not None and spare.become(command, job=job):
        return spare.process
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=child_environment(job=job),
        start_new_session=True,
    )


_waited_for: set[subprocess.Popen[bytes]] = set()


@contextmanager
def waited_for(child: subprocess.Popen[bytes]) -> Iterator[None]:
    """A `with` block in which somebody waits for a process: when the block fails or this process ends, so does it.

    The process has a session of its own, where Ctrl-C of the terminal does not reach it.
    """
    _waited_for.add(child)
    try:
        yield
    except BaseException:
        end_group(child)
        raise
    finally:
        _waited_for.discard(child)


def end_group(child: subprocess.Popen[bytes]) -> None:
    """End a process that `started` returned, and what it has started itself."""
    if child.poll() is None:
        with suppress(OSError):
            if hasattr(os, "killpg"):
                os.killpg(child.pid, signal.SIGKILL)
            else:
                child.kill()


def _end_all() -> None:
    """End the processes that somebody waits for, as nobody does any more."""
    for child in list(_waited_for):
        end_group(child)


# Before threads are joined where Python can: a thread of a page that waits for a process would hold up the end.
getattr(threading, "_register_atexit", atexit.register)(_end_all)


def is_ours(command: list[str]) -> bool:
    """Say whether a command is one of dynlora's, run by this Python."""
    return command[: len(_ENTRY)] == _ENTRY
