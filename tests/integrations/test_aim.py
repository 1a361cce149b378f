"""Aim: `pip install 'dynlora[aim]'`; it is not among the packages of the tests, see pyproject.toml."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from dynlora.integrations.trackers.base import FOLDER
from dynlora.store.notes import read_trackers
from dynlora.store.writer import RunWriter
from tests.integrations.tracked import numbers, stored
from tests.store.builder import define, new_run, record

pytest.importorskip("aim", reason="Aim is not installed: pip install 'dynlora[aim]' into an environment of its own")

READ = """
import json, sys, aim
from aim.sdk.types import QueryReportMode
quiet, repo = QueryReportMode.DISABLED, aim.Repo(sys.argv[1])
points = []
for metric in repo.query_metrics("metric.name != ''", quiet):
    steps, (values, *_) = metric.data.numpy()
    points += [(metric.name, step, value) for step, value in zip(steps.tolist(), values.tolist(), strict=True)]
images = [int(step) for one in repo.query_images("images.name != ''", quiet) for step in one.data.indices_list()]
runs = [(run.name, run["hparams"]["dynlora.run"], run["dynlora"]["status"]) for run in repo.iter_runs()]
print(json.dumps([points, sorted(images), runs]))
"""
"""Prints what a repository holds, as Aim itself reads it."""


def test_a_resumed_run_is_one_run_of_aim_without_double_points(runs_dir: Path) -> None:
    folder = new_run(runs_dir)
    for first, last, resume_from, state in ((1, 12, None, "stopped"), (13, 20, 12, "finished")):
        with RunWriter.open(folder, resume_from=resume_from) as writer:
            define(writer)
            record(writer, first, last)
            writer.finish(state)
        command = [sys.executable, "-m", "dynlora", "track", folder.name, "--runs-dir", str(runs_dir), "--to", "aim"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
        assert (done.returncode, read_trackers(folder)["aim"].error) == (0, None), done.stderr

    place = str(runs_dir / FOLDER / "aim")
    read = subprocess.run([sys.executable, "-c", READ, place], capture_output=True, text=True, check=True, timeout=300)
    points, images, runs = json.loads(read.stdout.splitlines()[-1])
    assert numbers([tuple(point) for point in points]) == stored(folder)
    assert {name for name, *_ in points} >= {"rank/query", "importance/query"}
    assert images == [10, 20]
    assert runs == [["a", folder.name, "finished"]]
