"""RSD against chance at equal cost: a line between the control's points."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.rsd import CONTROL, against_control, curve_of_control


def solved(point: str, right: list[bool], flops: float) -> list[dict[str, Any]]:
    """Return solutions of a point."""
    return [{"point": point, "problem": n, "right": one, "flops": flops} for n, one in enumerate(right)]


def test_a_way_is_compared_with_chance_at_its_own_cost() -> None:
    target = solved("target", [True] * 10, 100)
    draft = solved("draft", [False] * 10, 50)
    chance = [one for p in CONTROL for one in solved(f"constant {p:g}", [True] * 5 + [False] * 5, 75)]
    curve = curve_of_control([*target, *draft, *chance])
    assert [len(point) for point in curve] == [10] * (2 + len(CONTROL))
    middle = against_control(solved("oracle", [True] * 10, 87.5), curve)
    assert middle["difference"] == pytest.approx(1 - 0.75)
    dear = against_control(solved("oracle", [True] * 10, 200), curve)
    assert dear["difference"] == 0, "beyond the end the end counts"
    cheap = against_control(solved("oracle", [True] * 10, 10), curve)
    assert cheap["difference"] == 1
