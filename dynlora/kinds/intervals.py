"""The interval of a paired difference of two fractions: right answers of two ways of solving the same problems."""

from __future__ import annotations

import math

Z = 1.959964
"""Of a 95 % interval."""


def paired_interval(better: int, worse: int, n: int) -> tuple[float, float]:
    """Return the 95 % interval of a difference of two fractions over the same n problems.

    Agresti and Min's (2005): a Wald interval with half a problem added to each of the four cells, which has width also
    where both solve the same problems: d = (better - worse) / (n + 2), and its variance is
    (better + worse + 1 - (n + 2) d^2) / (n + 2)^2.

    Args:
        better: problems that only the first one solves.
        worse: problems that only the second one solves.
        n: problems, at least one.
    """
    whole = n + 2
    centre = (better - worse) / whole
    reach = Z * math.sqrt(max(0.0, better + worse + 1 - whole * centre * centre)) / whole
    return max(-1.0, centre - reach), min(1.0, centre + reach)
