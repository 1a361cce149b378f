"""A run whose process is killed while trackers are written ends there too, and continues as the same run."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from dynlora.integrations.trackers.base import FOLDER
from dynlora.store.notes import read_trackers
from dynlora.store.reader import RunReader
from tests.integrations.tracked import rows
from tests.tiny import tiny_arguments
from tests.waiting import until

pytestmark = pytest.mark.journey

STEPS = 5000


def folders(runs_dir: Path) -> list[Path]:
    return [path.parent for path in runs_dir.glob("*/run.db")]


def steps_of(runs_dir: Path) -> list[int]:
    """The last step that each tracker was given."""
    return [written.step or 0 for folder in folders(runs_dir) for written in read_trackers(folder).values()]


def tracking(run_id: str) -> list[int]:
    """The processes that write a run to trackers."""
    return [
        process.pid
        for process in psutil.process_iter(["cmdline"])
        if {"track", run_id} <= set(process.info["cmdline"] or ())
    ]


def test_a_killed_run_ends_in_mlflow_and_a_resume_continues_it(
    tiny_bert: Path, tiny_data: Path, runs_dir: Path
) -> None:
    settings = (f"train.steps={STEPS}", "log.to=[mlflow]", "log.checkpoint_every=100", "log.eval_every=1000")
    command = [sys.executable, "-m", "dynlora", "train", *tiny_arguments(tiny_bert, tiny_data, *settings)]
    command += ["--runs-dir", str(runs_dir)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as training:
        until(lambda: any(step > 100 for step in steps_of(runs_dir)), "the tracker was given steps")
        os.kill(training.pid, signal.SIGKILL)
    [folder] = folders(runs_dir)
    until(lambda: not tracking(folder.name), "who writes to the tracker has seen that the run was interrupted")
    file = runs_dir / FOLDER / "mlflow" / "mlflow.db"
    assert rows(file, "SELECT status FROM runs") == [("KILLED",)]
    assert (read_trackers(folder)["mlflow"].step or 0) < STEPS

    resumed = subprocess.run(
        [sys.executable, "-m", "dynlora", "resume", folder.name, "--runs-dir", str(runs_dir), "--json"],
        capture_output=True,
        check=False,
        timeout=600,
    )
    assert json.loads(resumed.stdout)["status"] == "finished", resumed.stderr.decode()
    assert rows(file, "SELECT status FROM runs") == [("FINISHED",)]
    assert rows(file, "SELECT 1 FROM metrics GROUP BY key, step HAVING count(*) > 1") == []
    with RunReader(folder) as reader:
        for series in reader.scalars(split="train"):
            [(count,)] = rows(file, f"SELECT count(*) FROM metrics WHERE key = 'train/{series.name}'")
            assert count == series.points, series.name
