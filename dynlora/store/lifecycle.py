"""Making a run folder, changing a run that nobody trains, and whether the process that a run names still wrote it."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import sqlite3
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Self

import psutil

from dynlora.errors import ConfigError, storing
from dynlora.safe_files import making_folder, sync, write_text
from dynlora.store import jsontext, schema
from dynlora.store.connection import LET_GO_S, lock_run, open_writer, switch_journal, unwritable
from dynlora.store.record import Moment, Record, Whole
from dynlora.store.schema import check_run_id
from dynlora.store.series import event_crc

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


ACTIVE_DIR = ".active"


def mark_active(runs_dir: Path, run_id: str) -> None:
    """Note that a run is queued or running."""
    folder = runs_dir / ACTIVE_DIR
    folder.mkdir(parents=True, exist_ok=True)
    (folder / check_run_id(run_id)).touch()


def unmark_active(runs_dir: Path, run_id: str) -> None:
    """Note that a run is over; no error when it was not marked."""
    with suppress(OSError):
        (runs_dir / ACTIVE_DIR / check_run_id(run_id)).unlink()


def active_ids(runs_dir: Path) -> list[str]:
    """Return the marked ids, in order."""
    ids: list[str] = []
    with suppress(OSError):
        for entry in (runs_dir / ACTIVE_DIR).iterdir():
            with suppress(ConfigError):
                ids.append(check_run_id(entry.name))
    return sorted(ids)


SET_META = "INSERT INTO meta VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value"
ADD_EVENT = "INSERT INTO events (time, step, kind, modules, payload, crc) VALUES (?, ?, ?, ?, ?, ?)"


def event_row(step: int, kind: str, modules: str, payload: str) -> tuple[Any, ...]:
    """Return what `ADD_EVENT` takes for an event of this moment.

    Args:
        step: of the run.
        kind: of the event.
        modules: positions, as JSON.
        payload: as JSON.
    """
    time = now()
    return time, step, kind, modules, payload, event_crc(time, step, kind, modules, payload)


LEFT_AFTER_S = 86_400.0
"""Age, seconds, at which what a killed start left behind is removed."""

ASIDE = ".new-"
"""How the name of a folder begins that is not a run yet; what a killed process left is removed after a day."""


def remove_old(folder: Path, is_leftover: Callable[[Path], bool]) -> None:
    """Remove the entries of a folder that are leftovers a day old: files, links and whole folders, where allowed."""
    with suppress(OSError):
        for entry in filter(is_leftover, folder.iterdir()):
            if now() - entry.lstat().st_mtime <= LEFT_AFTER_S:
                continue
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry, ignore_errors=True)
            else:
                with suppress(OSError):
                    entry.unlink()


def remove_unfinished(runs_dir: Path) -> None:
    """Remove the run folders that a killed creation left a day ago."""
    remove_old(runs_dir, lambda entry: entry.name.startswith(ASIDE))


def create_run(
    runs_dir: str | os.PathLike[str],
    *,
    run_id: str | None = None,
    config_yaml: str,
    meta: Mapping[str, Any],
    max_steps: int,
    state: str = "queued",
    fill: Callable[[Path], None] | None = None,
) -> Path:
    """Make a run folder completely or not at all and return it.

    Args:
        runs_dir: folder that holds the runs; made when missing.
        run_id: id of the run; a new one when None.
        config_yaml: the configuration, kept as `config.yaml`.
        meta: facts about the run, each value JSON.
        max_steps: steps of the whole run.
        state: `queued`, or `running` for a run that this process trains itself: another process that restarts the
            queue must not pick it up between `create` and `open`.
        fill: puts further files into the folder before it takes its name.

    Raises:
        ConfigError: when the id is taken or cannot name a run.
        StorageError: when the disk refuses: it is full or read-only, or the path cannot be a folder.
    """
    if state not in ("queued", "running"):
        raise ConfigError(f"state {state!r} of a new run: use 'queued' or 'running'")
    root = Path(runs_dir)
    run_id = schema.new_run_id() if run_id is None else run_id
    folder = schema.run_folder(root, run_id, must_exist=False)
    with storing(f"a new run in {root}"), making_folder(root / ACTIVE_DIR):
        if os.path.lexists(folder):
            raise ConfigError(f"run id {run_id!r} exists already in {root}; use another id or delete that run")
        remove_unfinished(folder.parent)
        aside = folder.parent / f"{ASIDE}{run_id}-{secrets.token_hex(4)}"
        try:
            aside.mkdir()
            write_text(aside / "config.yaml", config_yaml)
            (aside / "train.log").touch()
            if fill is not None:
                fill(aside)
            _write_database(aside, {"id": run_id, "created": now(), **meta}, max_steps, state)
            mark_active(folder.parent, run_id)
            aside.rename(folder)
        except BaseException:
            shutil.rmtree(aside, ignore_errors=True)
            if not os.path.lexists(folder):
                unmark_active(folder.parent, run_id)
            raise
    sync(folder.parent)
    return folder


def annotate(
    folder: Path,
    *,
    state: str | None = None,
    error: str | None = None,
    meta: Mapping[str, Any] | None = None,
    events: Sequence[tuple[int, str, Mapping[str, Any]]] = (),
) -> None:
    """Change a run that nobody is training, in one transaction: its state, meta values, further events.

    Args:
        folder: folder of the run.
        state: new state, or None to keep it; `queued` puts the run back into the queue.
        error: one sentence, stored together with a new state.
        meta: values to set.
        events: (step, kind, payload) to append.

    Raises:
        RunBusyError: when a process is writing the run.
        CorruptRunError: when it cannot be read or written.
    """
    if state is not None and state not in schema.STATES:
        raise ConfigError(f"state {state!r} of a run: use one of {', '.join(schema.STATES)}")
    with lock_run(folder, LET_GO_S):
        connection = open_writer(folder)
        try:
            stored = _annotate(connection, state, error, meta or {}, events)
            over = stored in schema.FINAL_STATES and switch_journal(connection, "delete", 1.0)
        except sqlite3.Error as failure:
            raise unwritable(folder, failure) from None
        finally:
            connection.close()
        if over:
            unmark_active(folder.parent, folder.name)
        elif state == "queued":
            mark_active(folder.parent, folder.name)


def _annotate(
    connection: sqlite3.Connection,
    state: str | None,
    error: str | None,
    meta: Mapping[str, Any],
    events: Sequence[tuple[int, str, Mapping[str, Any]]],
) -> str:
    connection.execute("BEGIN IMMEDIATE")
    connection.executemany(SET_META, [(key, jsontext.dump(value)) for key, value in meta.items()])
    rows = [event_row(step, kind, "[]", jsontext.dump(dict(payload))) for step, kind, payload in events]
    connection.executemany(ADD_EVENT, rows)
    if state is not None:
        connection.execute(
            "UPDATE status SET state = ?, error = ?, heartbeat = ?, pid = NULL, process_start = NULL, host = NULL",
            (state, error and jsontext.clip(error, 20_000), now()),
        )
    stored = connection.execute("SELECT state FROM status").fetchone()
    connection.execute("COMMIT")
    return str(stored[0]) if stored else ""


def _write_database(folder: Path, meta: Mapping[str, Any], max_steps: int, state: str) -> None:
    connection = sqlite3.connect(folder / schema.DB_NAME, isolation_level=None)
    me = this_process() if state == "running" else (None, None, None)
    try:
        connection.execute(f"PRAGMA page_size={schema.PAGE_BYTES}")
        connection.execute("BEGIN IMMEDIATE")
        schema.migrate(connection)
        connection.executemany(SET_META, [(key, jsontext.dump(value)) for key, value in meta.items()])
        connection.execute(
            "INSERT INTO status VALUES (1, ?, 0, ?, ?, ?, ?, ?, NULL, 0)", (state, int(max_steps), now(), *me)
        )
        connection.execute("COMMIT")
    finally:
        connection.close()
