"""What is cached needs no network: a run of the embedded model and data where no interface leads anywhere."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from dynlora.assets import MODELS

ROOT = Path(__file__).resolve().parents[2]
ALONE = ["unshare", "--map-root-user", "--net"]
SETTINGS = ("train.steps=2", "train.batch_size=4", "data.max_train=64", "data.max_eval=16", "strategy.name=lora")


def _is_allowed() -> bool:
    return shutil.which("unshare") is not None and not subprocess.run([*ALONE, "true"], capture_output=True).returncode


@pytest.mark.torture
def test_a_cached_model_trains_without_a_network(runs_dir: Path) -> None:
    if not _is_allowed() or not MODELS["minilm"].cached:
        pytest.skip("network namespaces are not allowed here, or the embedded model is not cached")
    settings = [part for setting in SETTINGS for part in ("--set", setting)]
    environment = {name: value for name, value in os.environ.items() if name != "HF_HUB_OFFLINE"}
    done = subprocess.run(
        [*ALONE, sys.executable, "-m", "dynlora", "train", *settings, "--runs-dir", str(runs_dir), "--json"],
        cwd=ROOT,
        env={**environment, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    assert json.loads(done.stdout)["status"] == "finished"
