"""What `show --json` concludes of a run: the verdict and the ranks as PEFT takes them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.command_line import document, run

SAMPLES = Path(__file__).resolve().parents[2] / "sample_runs"
LORA, DYNAMIC = "20261205-144905-03e6ddf3", "20261205-145115-dab7e702"


@pytest.fixture
def beside(runs_dir: Path) -> Path:
    """A runs folder with two sample runs of one seed."""
    for name in (LORA, DYNAMIC):
        (runs_dir / name).mkdir()
        for file in ("run.db", "config.yaml"):
            shutil.copy(SAMPLES / name / file, runs_dir / name)
    return runs_dir


def run_document(runs_dir: Path, run_id: str) -> Any:
    """Return what `show --json` prints."""
    return document(run(runs_dir, "show", run_id, "--json"))


def test_a_run_is_held_against_plain_lora_beside_it(beside: Path) -> None:
    verdict = run_document(beside, DYNAMIC)["verdict"]
    assert verdict["n"] == 1
    assert verdict["low"] <= verdict["difference"] <= verdict["high"]
    assert "lora" in verdict["against"]
    assert verdict["text"] in run(beside, "show", DYNAMIC).stdout
    shutil.rmtree(beside / LORA)
    assert run_document(beside, DYNAMIC)["verdict"] is None


def test_the_ranks_are_given_as_a_lora_config(beside: Path) -> None:
    details = run_document(beside, DYNAMIC)
    config = details["lora_config"]
    ranks = {name: config["rank_pattern"].get(name, config["r"]) for name in config["target_modules"]}
    assert ranks == {name: rank for name, rank in details["ranks"].items() if rank}
    assert set(config) == {"task_type", "r", "lora_alpha", "target_modules", "rank_pattern", "alpha_pattern"}
