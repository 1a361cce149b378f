"""The examples run and show what they say."""

from __future__ import annotations

import runpy
from pathlib import Path

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def test_own_loop_finds_the_planted_layer() -> None:
    ranks = runpy.run_path(str(EXAMPLES / "own_loop.py"))["main"]()
    assert ranks[2] == max(ranks) > 3
    assert sum(ranks) <= 9
