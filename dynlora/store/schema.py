"""The tables of `run.db`, their migrations, run ids and the limits a reader puts on a file it does not trust."""

from __future__ import annotations

import os
import re
import secrets
import shlex
import sqlite3
import stat
import time
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

from dynlora.errors import ConfigError, CorruptRunError, RunNotFoundError
from dynlora.store.rows import ModuleRow as ModuleRow

DB_NAME = "run.db"
LOCK_NAME = ".lock"
PAGE_BYTES = 8192
STATES = ("queued", "running", "finished", "failed", "stopped")
FINAL_STATES = ("finished", "failed", "stopped")
AXES = ("module", "component", "group", "example", "member")

LEVELS = (16, 64, 256, 1024, 4096)
"""Rows summed up by one roll-up of each level; each level is a multiple of the one before."""

MAX_DB_BYTES = 64 * 2**30
MAX_CELL_BYTES = 64 * 2**20
MAX_TEXT_BYTES = 4 * 2**20
MAX_RESULT_BYTES = 2 * 2**30
MAX_JSON_DEPTH = 32
MAX_WIDTH = MAX_CELL_BYTES // 4
MAX_ROWS = 1_000_000
MAX_SIGNALS = 4096
MAX_SIZE = 2**31

_RUN_ID = re.compile(r"[0-9A-Za-z][0-9A-Za-z_-]{0,63}\Z")
_RESERVED = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])\Z", re.IGNORECASE)

_VERSION_1 = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE status (
    id INTEGER PRIMARY KEY CHECK (id = 1), state TEXT NOT NULL, step INTEGER NOT NULL, max_steps INTEGER NOT NULL,
    heartbeat REAL NOT NULL, pid INTEGER, process_start REAL, host TEXT, error TEXT, opened INTEGER NOT NULL);
CREATE TABLE modules (
    position INTEGER PRIMARY KEY, name TEXT NOT NULL, layer INTEGER, kind TEXT NOT NULL, d_in INTEGER NOT NULL,
    d_out INTEGER NOT NULL, max_rank INTEGER NOT NULL);
CREATE TABLE signals (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, axis TEXT NOT NULL, unit TEXT NOT NULL,
    width INTEGER NOT NULL);
CREATE TABLE vectors (
    signal INTEGER NOT NULL, step INTEGER NOT NULL, data BLOB NOT NULL, crc INTEGER NOT NULL,
    PRIMARY KEY (signal, step)) WITHOUT ROWID;
CREATE TABLE scalars (
    name TEXT NOT NULL, split TEXT NOT NULL, step INTEGER NOT NULL, value REAL,
    PRIMARY KEY (name, split, step)) WITHOUT ROWID;
CREATE TABLE rollups (
    name TEXT NOT NULL, split TEXT NOT NULL, level INTEGER NOT NULL, first_step INTEGER NOT NULL,
    last_step INTEGER NOT NULL, low BLOB NOT NULL, high BLOB NOT NULL, last BLOB NOT NULL, crc INTEGER NOT NULL,
    PRIMARY KEY (name, split, level, first_step));
CREATE TABLE groups (position INTEGER PRIMARY KEY, name TEXT NOT NULL);
CREATE TABLE examples (
    position INTEGER PRIMARY KEY, text TEXT NOT NULL, text_pair TEXT, label TEXT, grp TEXT, x REAL, y REAL);
CREATE TABLE events (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, time REAL NOT NULL, step INTEGER NOT NULL, kind TEXT NOT NULL,
    modules TEXT NOT NULL, payload TEXT NOT NULL);
CREATE TABLE logs (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, time REAL NOT NULL, level TEXT NOT NULL, message TEXT NOT NULL);
CREATE TABLE system (time REAL NOT NULL, name TEXT NOT NULL, value REAL);
"""


_VERSION_2 = """
ALTER TABLE scalars ADD COLUMN crc INTEGER;
ALTER TABLE events ADD COLUMN crc INTEGER;
"""


def _statements(text: str) -> Callable[[sqlite3.Connection], None]:
    def run(connection: sqlite3.Connection) -> None:
        for statement in text.split(";"):
            if statement.strip():
                connection.execute(statement)

    return run


MIGRATIONS: list[Callable[[sqlite3.Connection], None]] = [_statements(_VERSION_1), _statements(_VERSION_2)]
"""`MIGRATIONS[v]` brings a file from `user_version` v to v + 1; a new file runs them all."""

VERSION = len(MIGRATIONS)


def migrate(connection: sqlite3.Connection) -> None:
    """Bring a file to `VERSION`, inside the caller's transaction."""
    for version in range(read_version(connection), VERSION):
        MIGRATIONS[version](connection)
        connection.execute(f"PRAGMA user_version = {version + 1}")


def read_version(connection: sqlite3.Connection) -> int:
    """Return `PRAGMA user_version`."""
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def crc_column(connection: sqlite3.Connection) -> str:
    """Return what to select for the checksum of a scalar or an event: runs of version 1 have none."""
    return "crc" if read_version(connection) > 1 else "NULL"


@lru_cache(maxsize=8)
def _expected(version: int) -> frozenset[tuple[str, str, str | None]]:
    connection = sqlite3.connect(":memory:")
    try:
        for migration in MIGRATIONS[:version]:
            migration(connection)
        return frozenset(connection.execute("SELECT type, name, sql FROM sqlite_master"))
    finally:
        connection.close()


def check_schema(connection: sqlite3.Connection, run: str) -> int:
    """Return the version of the file of a run after checking that it holds our tables and nothing else.

    Views, triggers, virtual tables and generated columns would run code of the file's author inside our queries, so
    the text of the schema must be exactly what the migrations write.

    Raises:
        CorruptRunError: when the version is unknown or the schema is not ours.
    """
    version = read_version(connection)
    if version > VERSION:
        raise CorruptRunError(
            f"run {run} was written by a newer dynlora (store version {version}, this one reads up to {VERSION}): "
            "update dynlora to read it"
        )
    if version < 1:
        raise CorruptRunError(f"run {run}: run.db has no run: its store version is 0, so dynlora did not write it")
    try:
        objects = connection.execute("SELECT type, name, sql FROM sqlite_master LIMIT 100").fetchall()
    except UnicodeDecodeError:  # also when SQLite's own complaint quotes the file
        raise CorruptRunError(f"run {run}: run.db has a schema that is not text: it is damaged") from None
    expected = _expected(version)
    if len(objects) != len(expected) or frozenset(objects) != expected:
        strange = sorted(str(row[1])[:40] for row in objects if row not in expected)
        what = ", ".join(strange) or "a table is missing"
        raise CorruptRunError(f"run {run}: run.db has a schema that dynlora did not write ({what})")
    return version


DEFAULT_RUNS_DIR = Path("runs")
"""Where runs are unless a command is told otherwise."""


def command_text(*parts: str, runs_dir: str | os.PathLike[str]) -> str:
    """Return a command on runs of a folder, to be pasted into a shell where this process was started.

    Args:
        parts: the command's arguments, the name of the command first.
        runs_dir: folder of the runs; it is left out where it is the default one.
    """
    is_default = os.path.realpath(runs_dir) == os.path.realpath(DEFAULT_RUNS_DIR)
    return shlex.join(["dynlora", *parts, *([] if is_default else ["--runs-dir", os.fspath(runs_dir)])])


def new_run_id(now: float | None = None) -> str:
    """Return a fresh id `YYYYMMDD-HHMMSS-<8 hex>` (local time; `now` in seconds since the epoch)."""
    return time.strftime("%Y%m%d-%H%M%S", time.localtime(now)) + "-" + secrets.token_hex(4)


def check_run_id(run_id: str) -> str:
    """Return the id unchanged when it can name a folder on every system.

    Raises:
        ConfigError: when it does not match `[0-9A-Za-z][0-9A-Za-z_-]{0,63}` or is a reserved name.
    """
    if not _RUN_ID.match(run_id) or _RESERVED.match(run_id):
        raise ConfigError(
            f"run id {run_id[:80]!r} cannot be used: use letters, digits, '-' and '_', "
            "at most 64, starting with a letter or digit"
        )
    return run_id


def run_folder(runs_dir: str | os.PathLike[str], run_id: str, *, must_exist: bool = True) -> Path:
    """Return the absolute folder of a run, checked to be inside the runs folder.

    Args:
        runs_dir: the folder that holds one folder per run.
        run_id: id of the run.
        must_exist: also require that the folder holds a `run.db`.

    Raises:
        ConfigError: when the id cannot name a run.
        CorruptRunError: when the folder or its `run.db` is a link that leaves its place.
        RunNotFoundError: when `must_exist` and there is no such run.
    """
    check_run_id(run_id)
    root = os.path.realpath(runs_dir)
    folder = os.path.join(root, run_id)
    if os.path.realpath(folder) != folder or os.path.commonpath([root, folder]) != root:
        raise CorruptRunError(f"run {run_id}: its folder is a link to another place; dynlora does not follow it")
    path = Path(folder)
    if must_exist:
        database(path)
    return path


def database(folder: Path) -> Path:
    """Return the path of a run's `run.db` after checking that it is a plain file of that folder.

    Raises:
        RunNotFoundError: when there is none.
        CorruptRunError: when it, or a file SQLite keeps beside it, is a link or no plain file.
    """
    path = folder / DB_NAME
    text = str(path)
    for suffix in ("", "-wal", "-shm", "-journal"):
        try:
            mode = os.lstat(text + suffix).st_mode
        except (OSError, ValueError):
            if not suffix:
                listing = command_text("runs", runs_dir=folder.parent)
                raise RunNotFoundError(
                    f"no run {folder.name!r} in {folder.parent}: `{listing}` lists the runs"
                ) from None
            continue
        if not stat.S_ISREG(mode):
            raise CorruptRunError(
                f"run {folder.name}: {DB_NAME}{suffix} is not a regular file; dynlora does not follow links"
            )
    return path
