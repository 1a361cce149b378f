"""The point of a decode that a page looks at."""

from __future__ import annotations

from dynlora.kinds.decode import frames, text
from dynlora.kinds.decode.result import Decode, Point
from dynlora.viz.kit.panel import Choice, RunView

POINT = "point"
"""Name of the choice."""


def point_choice(result: Decode) -> Choice | None:
    """Return the points that have solved a problem; None before the first."""
    points = {point.key: point for point in result.points if point.key in result.solved}
    if not points:
        return None
    usual = frames.best(result) or next(iter(points.values()))
    words = {key: frames.label(point) for key, point in points.items()}
    return Choice("point", "Threshold", words, usual.key, help=text.ONLY_FIRST)


def point_named(result: Decode, key: str | None) -> Point | None:
    """Return the point of a key, the usual one where the key is none of the decode's; None before the first."""
    choice = point_choice(result)
    if choice is None:
        return None
    chosen = key if key in choice.options else choice.usual
    return next(point for point in result.points if point.key == chosen)


def point_of(view: RunView) -> Point | None:
    """Return the chosen point."""
    return point_named(view.result, view.chosen.get(POINT))
