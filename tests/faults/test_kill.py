"""Runs that are killed, stopped or copied at any place: nothing is lost."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from dynlora.strategies import registry
from tests.faults.marks import NOT_ON_WINDOWS

ROOT = Path(__file__).resolve().parents[2]


def campaign(*arguments: str) -> dict:
    """Run a campaign in a process of its own and return its report."""
    command = [sys.executable, "-m", "tests.faults.kill", *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, check=False, timeout=3600)
    assert done.stdout, done.stderr.decode()[-3000:]
    return json.loads(done.stdout)


@pytest.mark.journey
@NOT_ON_WINDOWS
def test_a_run_that_is_disturbed_ends_as_if_it_had_not_been() -> None:
    report = campaign("--count", "14", "--kills", "3", "--strategies", "dynamic,beamlora", "--seed", "1")
    assert report["lost"] == []
    assert report["tried"] >= 8
    assert report["kills"] >= 3
    assert report["refused"] <= 1


@NOT_ON_WINDOWS
@pytest.mark.torture
def test_two_hundred_kills_over_all_strategies(tally: Callable[[str, int, int], None]) -> None:
    report = campaign("--count", "200", "--kills", "200")
    tally(
        "a run that is killed, ended or copied anywhere ends as if it had not been",
        report["tried"],
        report["tried"] - len(report["lost"]),
    )
    tally("a SIGKILL loses nothing", report["kills"], report["kills"] - len(report["lost"]))
    tally("a copy made while a run is written can be read", report["refused"] + _copies(report), _copies(report))
    assert report["lost"] == []
    assert report["kills"] >= 200
    assert report["refused"] <= report["tried"] * 0.05
    assert len(report["strategies"]) == len(registry())


def _copies(report: dict) -> int:
    """Return the copies that were resumed."""
    return sum(row["count"] for row in report["counts"] if row["way"] == "copy" and row["outcome"] == "equal")
