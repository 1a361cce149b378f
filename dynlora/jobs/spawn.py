"""Child processes of a runs folder: what they inherit, how they are detached, and the small files beside them."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from dynlora.errors import CorruptRunError, storing
from dynlora.jobs import warm
from dynlora.jobs.environment import child_environment
from dynlora.safe_files import NotPlainFileError, open_log
from dynlora.store.connection import take_lock

Folder = str | os.PathLike[str]

_END_S = 5.0
_LEAVES_S = 0.5
"""How long a process that has closed its output may take to end before it counts as continuing, seconds."""

_children: list[subprocess.Popen[bytes]] = []


def spawn_detached(command: list[str], log: Path, job: Path | None = None) -> int:
    """Start a process that outlives this one and the terminal; return its pid.

    Args:
        command: to run.
        log: takes its output, at the end.
        job: the record that a helper process is given.

    Raises:
        CorruptRunError: when the log is no plain file.
        OSError: when the process cannot be started.
    """
    child = spawn_logged(command, log, child_environment(job=job))
    _children.append(child)
    return child.pid


def spawn_logged(
    command: list[str], log: Path, environment: Mapping[str, str], *, is_detached: bool = True
) -> subprocess.Popen[bytes]:
    """Start a process whose output goes to a log, and return it.

    Args:
        command: as an argument list.
        log: file that is appended to.
        environment: all that it inherits.
        is_detached: it outlives this process and the terminal.

    Raises:
        CorruptRunError: when something else is in the place of the log.
        OSError: when the process cannot be started.
    """
    descriptor = _open_log(log)
    try:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=descriptor,
            stderr=subprocess.STDOUT,
            env=environment,
            close_fds=True,
            start_new_session=is_detached,
            creationflags=0x00000208 if sys.platform == "win32" and is_detached else 0,  # DETACHED | NEW_PROCESS_GROUP
        )
    finally:
        os.close(descriptor)


def _open_log(log: Path) -> int:
    try:
        return open_log(log)
    except NotPlainFileError:
        raise CorruptRunError(f"{log.name} is not a regular file; remove it") from None


def run_or_leave(command: list[str], timeout_s: float, job: Path | None = None) -> subprocess.CompletedProcess[bytes]:
    """Run a command until it ends, or until it has closed its output and continues alone; return what it printed.

    The process is detached: it outlives this one and the terminal. Its exit code is 0 when it continues.

    Raises:
        subprocess.TimeoutExpired: when it did neither in time; it is ended then.
        OSError: when it cannot be started.
    """
    spare = warm.KEEPER.pid
    child = warm.started(command, job)
    output: dict[str, bytes] = {}
    readers = [
        threading.Thread(target=_drain, args=(output, name, pipe), daemon=True)
        for name, pipe in (("out", child.stdout), ("err", child.stderr))
    ]
    with warm.waited_for(child):
        for reader in readers:
            reader.start()
        deadline = time.monotonic() + timeout_s
        for reader in readers:
            reader.join(max(0.0, deadline - time.monotonic()))
        if len(output) < len(readers):
            warm.end_group(child)
            child.wait()
            raise subprocess.TimeoutExpired(command, timeout_s)
    try:
        code = child.wait(_LEAVES_S)
        if child.pid == spare:  # the next one need not wait: nothing competes with it any more
            warm.KEEPER.renew()
    except subprocess.TimeoutExpired:
        code = 0
        _children.append(child)
    return subprocess.CompletedProcess(command, code, output["out"], output["err"])


def _drain(output: dict[str, bytes], name: str, pipe: IO[bytes]) -> None:
    """Keep all that a process writes to a pipe, until it closes it."""
    with pipe:
        output[name] = pipe.read()


def log_from_here(log: Path) -> None:
    """Let everything this process still says go to a run's log; whoever waited for its output is free.

    Raises:
        CorruptRunError: when the log is no plain file.
        OSError: when it cannot be written.
    """
    descriptor = _open_log(log)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    for target in (1, 2):
        os.dup2(descriptor, target)
    os.close(descriptor)


def end_child(pid: int) -> None:
    """End a process that `spawn_detached` started here and collect it."""
    for child in [child for child in _children if child.pid == pid]:
        child.terminate()
        try:
            child.wait(_END_S)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
    reap()


def adopt(child: subprocess.Popen[bytes]) -> None:
    """Collect a process like those that were started here, once it has ended."""
    _children.append(child)


def check_log(log: Path) -> None:
    """Make sure that a log can be appended to.

    Raises:
        CorruptRunError: when it is no plain file.
        OSError: when it cannot be written.
    """
    os.close(_open_log(log))


def reap() -> None:
    """Collect ended children, so that a server that runs for weeks keeps no zombies."""
    for child in list(_children):
        if child.poll() is not None:
            with suppress(ValueError):
                _children.remove(child)


@contextmanager
def locked(path: Path, wait_s: float) -> Iterator[None]:
    """Hold the lock file `path`.

    Raises:
        RunBusyError: when another process holds it for longer than `wait_s` seconds.
        CorruptRunError: when the file is a link.
    """
    lock = take_lock(
        path,
        wait_s,
        link=f"{path} is a link; dynlora does not follow links in a runs folder",
        busy=f"{path.parent} has been busy for {wait_s:.0f} s; try again",
    )
    try:
        yield
    finally:
        lock.release()


def runs_root(runs_dir: Folder, *, make: bool = False) -> Path:
    """Return a runs folder as an absolute path without links, made when asked for.

    Raises:
        StorageError: when it cannot be made.
    """
    root = Path(os.path.realpath(runs_dir))
    if make:
        with storing(f"the runs folder {root}"):
            root.mkdir(parents=True, exist_ok=True)
    return root


def own_folder(root: Path, name: str) -> Path:
    """Return a folder of the runs folder that is no run, made when missing.

    Raises:
        CorruptRunError: when it is a link: dynlora writes nowhere but in the runs folder.
        StorageError: when it cannot be made.
    """
    folder = root / name
    if folder.is_symlink():
        raise CorruptRunError(f"{folder} is a link; dynlora does not follow links in a runs folder")
    with storing(f"the folder {folder}"):
        folder.mkdir(exist_ok=True)
    return folder
