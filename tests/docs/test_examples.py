"""The examples run and show what they say."""

from __future__ import annotations

import runpy
from pathlib import Path

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def test_own_loop_finds_the_planted_layer() -> None:
    ranks = runpy.run_path(str(EXAMPLES / "own_loop.py"))["main"]()
    assert ranks[2] == max(ranks) > 3
    assert sum(ranks) <= 9


def test_the_trainer_moves_ranks_within_the_budget() -> None:
    ranks = runpy.run_path(str(EXAMPLES / "trainer.py"))["main"]()
    assert len(set(ranks)) > 1
    assert min(ranks) >= 1
