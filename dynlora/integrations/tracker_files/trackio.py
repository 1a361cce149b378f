"""Runs of a Trackio database: numbers and settings; nothing of Trackio is imported, no picture is opened."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from dynlora.errors import DataError
from dynlora.integrations.tracker_files.sqlite_file import SqliteFile
from dynlora.integrations.tracker_files.tracker_run import MAX_RUNS, TrackerRun
from dynlora.integrations.trackers.places import place_of
from dynlora.text import printable

TITLE = "Trackio"
TABLES = ("metrics",)
NUMBERS = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
"""How Trackio writes numbers that JSON has no form for."""


def trackio_file(source: str, runs_dir: Path) -> Path:
    """Return the database that a path, or the name of a project, means.

    Raises:
        DataError: when there is none.
    """
    path = Path(os.path.expanduser(source))
    if os.path.lexists(path) and not path.is_dir():
        return path
    name = "".join(letter for letter in source if letter.isalnum() or letter in "-_") or "default"
    home = os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface"
    folders = [Path(place_of("trackio", runs_dir.absolute(), os.environ).address), Path(home) / "trackio"]
    for folder in folders:
        if (folder / f"{name}.db").is_file():
            return folder / f"{name}.db"
    projects = ", ".join(map(str, dict.fromkeys(folders)))
    raise DataError(f"{source}: neither a file nor a project of Trackio in {projects}; give the path of its .db file")


def trackio_runs(path: Path) -> list[TrackerRun]:
    """Return the runs of a database.

    Raises:
        DataError: when the file cannot be read.
    """
    with SqliteFile(path, TABLES, TITLE) as file:
        key = "run_id" if "run_id" in file.columns("metrics") else "run_name"
        heads = list(
            file.rows(f"SELECT {key}, max(run_name), min(timestamp) FROM metrics GROUP BY {key} LIMIT ?", (MAX_RUNS,))
        )
        settings = _settings(file)
        return [_run(file, key, str(run), name, start, settings) for run, name, start in heads]


def _settings(file: SqliteFile) -> dict[str, Mapping[str, Any]]:
    """Return the settings of each run that has some."""
    names = file.columns("configs")  # empty where there is no such table
    if "config" not in names:
        return {}
    key = "run_id" if "run_id" in names else "run_name"
    return {str(run): _object(text) for run, text in file.rows(f"SELECT {key}, config FROM configs")}


def _run(
    file: SqliteFile, key: str, run: str, name: object, start: object, settings: Mapping[str, Mapping[str, Any]]
) -> TrackerRun:
    created = 0.0
    with suppress(ValueError, OverflowError):
        created = max(0.0, datetime.fromisoformat(str(start)).timestamp())
    record = TrackerRun(TITLE, str(file.path.absolute()), run, printable(name or run, 200), created)
    record.take_params({k: v for k, v in settings.get(run, {}).items() if not k.startswith("_")})
    for step, text in file.rows(f"SELECT step, metrics FROM metrics WHERE {key} = ? ORDER BY step, id", (run,)):
        for name, value in _object(text).items():
            record.add(name, step, NUMBERS.get(value, value) if isinstance(value, str) else value)
    return record


def _object(text: object) -> dict[str, Any]:
    """Return a JSON object, empty where there is none."""
    with suppress(ValueError, TypeError, RecursionError):
        value = json.loads(text)  # pyright: ignore[reportArgumentType]
        if isinstance(value, dict):
            return value
    return {}
