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


@pytest.mark.torture
@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked")
def test_a_disk_that_fills_is_read_only_or_goes_away(tally: Callable[[str, int, int], None]) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "tests.faults.disk"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, check=False, timeout=900)
    found = json.loads(done.stdout)
    tried = {name: outcome for name, outcome in found.items() if not outcome.startswith("not tried")}
    if not tried:
        pytest.skip(f"no small file system can be mounted here: {found}")
    kept = list(tried.values()).count("equal")
    tally(
        "a disk that fills, or a folder that goes away, ends in a sentence, and nothing good is lost", len(tried), kept
    )
    assert set(tried.values()) == {"equal"}, tried
