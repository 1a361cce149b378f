"""Making a run folder, and changing a run that nobody is training."""

from __future__ import annotations

import os
import secrets
import shutil
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from dynlora.errors import ConfigError, storing
from dynlora.safe_files import making_folder, sync, write_text
from dynlora.store import jsontext, schema
from dynlora.store.connection import LET_GO_S, lock_run, open_writer, switch_journal, unwritable
from dynlora.store.process import now, this_process
from dynlora.store.schema import check_run_id
from dynlora.store.series import event_crc

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
