"""Full disks, removed folders, no room to begin: a sentence, and what was good stays good."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked")


def on_small_disks(tally: Callable[[str, int, int], None], *names: str) -> None:
    """Carry out trials, all where none is named; what cannot be tried here is left out, and said."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "tests.faults.disk", *names]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, check=False, timeout=3600)
    assert done.stdout, done.stderr.decode()[-2000:]
    outcomes = json.loads(done.stdout)
    tried = {name: outcome for name, outcome in outcomes.items() if not outcome.startswith("not tried")}
    if not tried:
        pytest.skip(f"no small file system can be mounted here: {outcomes}")
    for name, outcome in tried.items():
        tally(f"disk: {name}", 1, int(outcome == "equal"))
    assert set(tried.values()) == {"equal"}, tried


@pytest.mark.journey
def test_no_room_to_begin_and_nothing_to_be_changed(tally: Callable[[str, int, int], None]) -> None:
    on_small_disks(tally, "no room to begin", "read-only from the start")


@pytest.mark.torture
def test_a_disk_that_fills_is_read_only_or_goes_away(tally: Callable[[str, int, int], None]) -> None:
    on_small_disks(tally)
