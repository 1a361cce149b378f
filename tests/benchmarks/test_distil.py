"""Figures of the distillation's benchmark against ones that are easy to check by hand."""

from __future__ import annotations

import pytest

from benchmarks.distil.tables import table

COUNTS = [2.0, 4.0]
BY_MODEL = {
    "base": [[4.0, 12.0], COUNTS],
    "student": [[3.0, 9.0], COUNTS],
    "averaged": [[3.0, 9.0], COUNTS],
    "sums": [[1.0, 2.0], COUNTS],
}


def test_means_are_over_tokens_and_differences_are_paired() -> None:
    rows = table(BY_MODEL)
    assert rows["base"][0] == pytest.approx(16 / 6)
    assert rows["student"][0] == pytest.approx(2.0)
    against = rows["student against"]
    assert set(against) == {"base", "averaged", "sums"}, "a model that is not measured yet is left out"
    mean, low, high = against["base"]
    assert mean == pytest.approx((-1 - 3) / 6)
    assert low < mean < high
    assert against["averaged"] == [0.0, 0.0, 0.0]


def test_without_the_student_nothing_is_held_against_it() -> None:
    assert "student against" not in table({"base": BY_MODEL["base"]})
