"""What a decode is said to show: the reward's thresholds are compared with the target, the control is not advised."""

from __future__ import annotations

from typing import Any

from dynlora.kinds.decode.work.results import results, words
from dynlora.kinds.decode.work.solve import Point

COSTS = {"target": 10.0, "draft": 2.0, "constant=0.5": 1.0, "threshold=0.5": 5.0, "threshold=0.9": 8.0}
POINTS = {
    "target": Point("target"),
    "draft": Point("draft"),
    "threshold=0.5": Point("threshold", 0.5),
    "threshold=0.9": Point("threshold", 0.9),
    "constant=0.5": Point("constant", 0.5),
}


def results_document(*keys: str) -> dict[str, Any]:
    """Return the document of a decode of ten problems, all of them right."""
    solved = [_solved(key, problem) for key in keys for problem in range(10)]
    return results([POINTS[key] for key in keys], solved)


def _solved(key: str, problem: int) -> dict[str, Any]:
    return {
        "point": key,
        "problem": problem,
        "right": True,
        "steps": [],
        "ended": "end",
        "tokens": {"draft_kept": 0, "draft_discarded": 0, "target": 1},
        "prefilled": {"target": 1},
        **dict.fromkeys(("flops", "flops_with_prefill", "seconds"), COSTS[key]),
    }


def test_the_control_is_not_recommended_though_it_costs_least() -> None:
    document = results_document("target", "draft", "threshold=0.5", "constant=0.5")
    assert document["next"].startswith("Decode with threshold=0.5;")
    assert "thresholds was chosen" not in document["conclusion"], "there was one"
    alone = results_document("target", "draft", "constant=0.5")
    assert alone["conclusion"].startswith("No threshold was decoded")


def test_a_threshold_that_was_chosen_among_several_says_so() -> None:
    document = results_document("target", "draft", "threshold=0.9", "threshold=0.5", "constant=0.5")
    assert document["conclusion"].startswith("At threshold=0.5 ")
    assert "one of 2 thresholds was chosen" in document["conclusion"]


def test_without_the_target_alone_nothing_is_compared() -> None:
    document = results_document("threshold=0.5")
    assert "nothing is compared" in document["conclusion"]
    (row,) = (line for line in words(document).splitlines() if line.startswith("threshold=0.5"))
    assert row.split()[-3:] == ["-", "-", "-"]
