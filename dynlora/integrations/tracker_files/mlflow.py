"""Runs of an MLflow database: numbers, settings and states; no artifact is opened, nothing of MLflow is imported."""

from __future__ import annotations

import math
from pathlib import Path

from dynlora.errors import DataError
from dynlora.integrations.tracker_files.sqlite_file import SqliteFile
from dynlora.integrations.tracker_files.tracker_run import MAX_RUNS, TrackerRun
from dynlora.integrations.trackers.base import OURS
from dynlora.text import printable

TITLE = "MLflow"
TABLES = ("experiments", "runs", "metrics", "params", "tags")
STATUS = {"FINISHED": "finished", "FAILED": "failed"}
"""States that are known; a run in another was stopped, or runs."""


def mlflow_runs(path: Path, experiment: str | None) -> list[TrackerRun]:
    """Return the runs of a database that are not deleted.

    Args:
        path: of the file.
        experiment: name of the experiment; all where it is None.

    Raises:
        DataError: when the file cannot be read, or has no such experiment.
    """
    with SqliteFile(path, TABLES, TITLE) as file:
        names = dict(file.rows("SELECT experiment_id, name FROM experiments"))
        if experiment is not None and experiment not in names.values():
            known = ", ".join(sorted(printable(name, 40) for name in names.values())) or "none"
            raise DataError(f"--experiment {experiment}: {path} has no such experiment; it has {known}")
        rows = file.rows(
            "SELECT run_uuid, name, status, start_time, experiment_id FROM runs WHERE lifecycle_stage = 'active' "
            "ORDER BY start_time LIMIT ?",
            (MAX_RUNS,),
        )
        chosen = [row for row in rows if experiment in (None, names.get(row[4]))]
        return [_run(file, str(run), name, status, start) for run, name, status, start, _ in chosen]


def _run(file: SqliteFile, run: str, name: object, status: object, start: object) -> TrackerRun:
    """Return one run; of several numbers of a step the one that was logged last counts."""
    created = start / 1000 if isinstance(start, int) and start > 0 else 0.0
    record = TrackerRun(TITLE, str(file.path.absolute()), run, printable(name or run, 200), created)
    record.status = STATUS.get(str(status), "stopped")
    record.take_params(dict(file.rows("SELECT key, value FROM params WHERE run_uuid = ? ORDER BY key", (run,))))
    tags = file.rows("SELECT key, value FROM tags WHERE run_uuid = ? ORDER BY key", (run,))
    record.take_params({key: value for key, value in tags if str(key).startswith(OURS)})
    numbers = file.rows(
        "SELECT key, step, value, is_nan FROM metrics WHERE run_uuid = ? ORDER BY key, step, timestamp", (run,)
    )
    for key, step, value, is_nan in numbers:
        record.add(str(key), step, math.nan if is_nan else value)
    return record
