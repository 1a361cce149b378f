"""Two processes that train together make one recorded run, whose gradients are those of one process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import dynlora
from dynlora.store.queries import list_runs

PROGRAM = "tests.integrations.two_processes"


def recorded(base: Path, folder: Path, *, processes: int) -> dict[str, dynlora.Run]:
    """Train with so many processes of four rows together, and return the runs by name."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
    command = [sys.executable, *launcher, "-m", PROGRAM, str(base), str(folder), str(folder / "trainer")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run([*command, str(4 // processes)], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "dynlora records no more" not in done.stderr
    rows = list_runs(folder)
    assert sorted(rows["name"]) == ["as it is", "each by itself"], "the first process alone records"
    assert set(rows["status"]) == {"finished"}
    return {name: dynlora.open_run(folder / run_id) for name, run_id in zip(rows["name"], rows["id"], strict=True)}


def values(frame: pd.DataFrame) -> np.ndarray:
    return frame.drop(columns="step").to_numpy(float)


@pytest.mark.journey
def test_two_processes_make_one_run_with_the_gradients_of_one(tiny_bert: Path, tmp_path: Path) -> None:
    alone = recorded(tiny_bert, tmp_path / "one", processes=1)["each by itself"]
    both = recorded(tiny_bert, tmp_path / "two", processes=2)
    run = both["each by itself"]
    assert run.summary["config"]["train"]["batch_size"] == alone.summary["config"]["train"]["batch_size"] == 4
    for signal in ("importance", "grad_norm", "delta_norm", "rank"):
        np.testing.assert_allclose(values(run.signal(signal)), values(alone.signal(signal)), rtol=1e-3, atol=1e-6)
    assert values(alone.signal("grad_norm")).max() > 0
    doubled = both["as it is"].signal("grad_norm")
    first = values(doubled)[0] / np.maximum(values(alone.signal("grad_norm"))[0], 1e-12)
    seen = values(alone.signal("grad_norm"))[0] > 1e-6
    np.testing.assert_allclose(first[seen], 2.0, rtol=1e-2)  # see docs/guides/own-loop.md
