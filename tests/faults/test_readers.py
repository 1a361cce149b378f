"""Fifty readers while one writes: nothing is missed, nothing is wrong."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.journey
@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked")
@pytest.mark.parametrize(("readers", "steps"), [(6, 150), pytest.param(50, 2000, marks=pytest.mark.torture)])
def test_readers_see_each_step_once_and_never_fewer_than_before(
    readers: int, steps: int, tally: Callable[[str, int, int], None]
) -> None:
    command = [sys.executable, "-m", "tests.faults.readers", "--readers", str(readers), "--steps", str(steps)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, check=False, timeout=1800)
    assert done.stdout, done.stderr.decode()[-2000:]
    report = json.loads(done.stdout)
    tally(f"{readers} readers see each step once while one writes", report["reads"], report["reads"] - report["wrong"])
    assert report["wrong"] == 0, done.stderr.decode()[-2000:]
    assert report["reads"] >= readers
    assert report["step_us_read"] < 5_000, "readers never hold the writer up: it waits for no lock of theirs"
