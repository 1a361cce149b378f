"""What boxes over upright axes pick: runs that lie within a box on each axis that has one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Interval = tuple[float, float]


def intervals(boxes: Iterable[Mapping[str, Any]], axes: int) -> dict[int, list[Interval]]:
    """Return from where to where each brushed axis is picked.

    Args:
        boxes: with `x` and `y`, from and to; the axes stand at 0, 1, 2, ...
        axes: how many there are.
    """
    found: dict[int, list[Interval]] = {}
    for box in boxes:
        (left, right), (low, high) = sorted(box["x"]), sorted(box["y"])
        for axis in range(axes):
            if left <= axis <= right:
                found.setdefault(axis, []).append((low, high))
    return found


def picked(places: Sequence[Sequence[float]], brushed: Mapping[int, Sequence[Interval]]) -> list[int] | None:
    """Return which runs lie within an interval on each brushed axis, None while nothing is brushed.

    Args:
        places: of the runs on each axis; NaN, which is in no interval, where a run has no such value.
        brushed: as `intervals` returns it.
    """
    if not brushed:
        return None
    runs = range(len(places[0]))
    return [
        run
        for run in runs
        if all(any(low <= places[axis][run] <= high for low, high in parts) for axis, parts in brushed.items())
    ]
