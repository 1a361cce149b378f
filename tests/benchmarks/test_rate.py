"""Suggested rates against a grid: losses are read off it, and a rule that no grid can judge has none."""

from __future__ import annotations

import math
from typing import Any

import pytest

from benchmarks import rate
from tests.jobs.test_advice import rate_answer

GRID = {"0.001": 3.0, "0.01": 1.0, "0.1": None}


def run(**changes: Any) -> dict[str, Any]:
    """Return a range test beside a grid."""
    return {"answer": rate_answer(), "cpu_s": 1.0, "grid": GRID, "suggested": 1.5, **changes}


def test_a_loss_is_read_off_between_the_rates_of_the_grid() -> None:
    assert rate.read_off(GRID, 0.01) == 1.0
    assert rate.read_off(GRID, math.sqrt(0.001 * 0.01)) == pytest.approx(2.0)
    assert rate.read_off(GRID, 0.0001) == 3.0
    assert math.isinf(rate.read_off(GRID, 0.02)), "towards a run that diverged"


def test_differences_are_to_the_best_of_the_grid() -> None:
    row = rate.summary({"a, seed 0": run()})["a, seed 0"]
    assert (row["best_rate"], row["best_loss"], row["suggested"], row["default"]) == (0.01, 1.0, 0.5, 2.0)


def test_a_rule_is_judged_on_all_runs_and_is_none_where_one_diverges() -> None:
    rules = rate.of_rules([run(), run()])
    assert set(rules) == {f"{rule} / {factor:g}" for rule in rate.BELOW for factor in rate.FACTORS}
    assert rules["breaks / 1"] is None
    suggested = rate._rate_by(rate_answer(), "breaks")
    assert suggested is not None
    tenth = suggested * rate.BELOW["breaks"] / 10
    assert rules["breaks / 10"] == pytest.approx(rate.read_off(GRID, tenth) - 1.0)


def test_committed_grids_are_read_with_the_last_file_deciding() -> None:
    grid = rate.tuned_grid("tuned-clinc150-r1,tuned-clinc150-r1-scale", "lora")
    assert list(grid) == sorted(grid, key=float)
    assert grid["0.01"] == 0.58579


def test_a_test_that_suggests_no_rate_judges_no_rule() -> None:
    flat = rate_answer()
    for test in flat["tests"]:
        test["losses"] = [1.0] * len(test["losses"])
    assert rate.of_rules([run(), run(answer=flat)]) == rate.of_rules([run()])
    assert set(rate.of_rules([run(answer=flat)]).values()) == {None}
