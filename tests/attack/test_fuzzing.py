"""Generated inputs of every kind: an answer or an error of ours; no file outside the runs folder, no process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from dynlora import config_files
from dynlora.errors import ConfigError

ROOT = Path(__file__).resolve().parents[2]


Tally = Callable[[str, int, int], None]


def survives(folder: Path, count: int, seed: int, tally: Tally) -> int:
    command = [sys.executable, "-m", "tests.attack.fuzzing", "--count", str(count), "--seed", str(seed), str(folder)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, check=False, timeout=3600)
    assert done.stdout, done.stderr.decode()[-3000:]
    report = json.loads(done.stdout)
    tried = sum(report["tried"].values())
    bad = report["crashed"] + sum(report["touched"].values())
    tally("a generated input ends in an answer or a sentence and touches nothing else", tried, tried - bad)
    assert report["crashes"] == {}
    assert report["touched"] == {}
    return tried


def test_a_few_hundred_inputs(tmp_path: Path, tally: Tally) -> None:
    assert survives(tmp_path, 400, 1, tally) >= 400


@pytest.mark.torture
def test_a_hundred_thousand_inputs(tmp_path: Path, tally: Tally) -> None:
    assert survives(tmp_path, 100_000, 2, tally) >= 100_000


BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join(['*' + before] * 9)}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize("tail", ["train: {steps: *i}", "name: *i", "name: &n [*n]"])
def test_a_few_lines_of_aliases_do_not_fill_the_memory(tail: str, tmp_path: Path) -> None:
    """A value of 9 ** 9 texts was written out to say what is wrong with it."""
    (tmp_path / "config.yaml").write_text(BOMB + tail)
    with pytest.raises(ConfigError, match="without aliases"):
        config_files.load_config(tmp_path / "config.yaml")
    assert isinstance(config_files.parse_value("&n [*n]"), str)
