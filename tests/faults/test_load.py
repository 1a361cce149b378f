"""Many runs, a long one, viewers who stay, trainings again and again: nothing is dropped and memory stays flat."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.browser.chromium import find_chromium

ROOT = Path(__file__).resolve().parents[2]


def under_load(*arguments: str) -> dict[str, Any]:
    if find_chromium() is None:
        pytest.skip("no Chromium: install one, or name it in the variable CHROMIUM")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "tests.faults.load", *arguments]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, check=False, timeout=3600)
    assert done.stdout, done.stderr.decode()[-2000:]
    return json.loads(done.stdout)


@pytest.mark.browser
@pytest.mark.journey
def test_a_growing_run_is_watched_by_two_and_loses_nothing() -> None:
    report = under_load("--runs", "30", "--steps", "400", "--modules", "36", "--viewers", "2", "--minutes", "0.1")
    assert report["wrong"] == []
    assert report["opened"] >= 5


@pytest.mark.torture
def test_a_thousand_runs_and_a_long_one_under_ten_viewers(tally: Callable[[str, int, int], None]) -> None:
    report = under_load("--runs", "1000", "--steps", "200000", "--modules", "448", "--viewers", "10", "--minutes", "5")
    tally(
        "a page opens under ten viewers, a thousand runs and one of 200,000 steps × 448 modules",
        report["opened"],
        report["opened"] - len(report["wrong"]),
    )
    assert report["wrong"] == []
    assert report["opened"] >= 30
    assert max(report["server_mib"]) < 1500


@pytest.mark.torture
def test_half_an_hour_with_a_new_run_every_minute_leaves_memory_flat(
    tally: Callable[[str, int, int], None],
) -> None:
    report = under_load(
        "--runs", "0", "--steps", "2000", "--modules", "36", "--viewers", "2", "--minutes", "30", "--train-every", "60"
    )
    tally(
        "a new run every minute for half an hour trains to its end while it is watched",
        report["trained"],
        report["trained"] - len(report["wrong"]),
    )
    assert report["wrong"] == []
    assert report["trained"] >= 25
    assert abs(report["growth_mib_per_minute"]) < 1
