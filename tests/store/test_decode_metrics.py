"""What a list of runs says of a decode: the accuracy of what its conclusion recommends, never that of the control."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from dynlora.store import queries
from dynlora.store.meta import DECODE, result_of

SAMPLE = Path(__file__).resolve().parents[2] / "sample_runs" / "20261128-170846-96663c96"


def point(accuracy: float | None, ratio: float | None, gap: float = 0.0, accept: str = "threshold") -> dict[str, Any]:
    """Return a point of a decode's results."""
    against = {"accuracy": {"difference": gap}, "flops": {"ratio": ratio}} if ratio is not None else None
    return {"accept": accept, "accuracy": accuracy, "against_target": against}


@pytest.mark.parametrize(
    ("points", "expected"),
    [
        ([point(0.4, 0.9), point(0.5, 0.7), point(0.6, 1.2)], 0.5),  # the cheapest that is as accurate as the target
        ([point(0.4, 0.5, -0.2), point(0.55, 0.9, -0.005)], 0.55),
        ([point(0.2, 0.5, -0.2), point(0.3, 0.9, -0.1)], 0.3),  # none is: the most accurate
        ([point(0.4, None), point(0.3, None)], 0.4),  # the target alone was not decoded
        ([point(0.4, 0.9), point(0.9, 0.1, accept="constant")], 0.4),
        ([point(None, None)], None),
        ([], None),
        ("no list", None),
        ([{"accuracy": "high"}, 3, None], None),
    ],
)
def test_the_result_is_that_of_the_recommended_threshold(points: Any, expected: float | None) -> None:
    assert result_of({"points": points}) == expected


def test_the_list_agrees_with_the_conclusion(tmp_path: Path) -> None:
    shutil.copytree(SAMPLE, tmp_path / SAMPLE.name)
    (row,) = queries.list_runs(tmp_path, kinds=(DECODE,)).to_dict("records")
    summary = queries.run_summary(tmp_path / SAMPLE.name)
    assert summary.metrics == {"accuracy": 0.4}
    assert summary.results["conclusion"].startswith("At threshold=0.3 the accuracy is 40.0%")
    assert (row["metrics"], row["metric"], row["trend"]) == ({"accuracy": 0.4}, "accuracy", [])
