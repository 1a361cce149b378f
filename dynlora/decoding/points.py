"""Which points are decoded: a rule at one or several values, and each role alone."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np

from dynlora.decoding.acceptance import Acceptance
from dynlora.decoding.solve import DRAFT, TARGET, Point
from dynlora.errors import ConfigError

MOST_VALUES = 101
_RANGE = re.compile(r"(?P<low>[^:]+?)(?::|\.\.)(?P<high>[^:]+):(?P<count>\d{1,6})")


def values_of(text: str) -> list[float]:
    """Return the values of a rule: one number, several with commas between, or A:B:N for N values from A to B.

    Raises:
        ConfigError: when the text is none of these; one sentence.
    """
    if found := _RANGE.fullmatch(text.strip()):
        low, high, count = _number(text, found["low"]), _number(text, found["high"]), int(found["count"])
        if not (math.isfinite(low) and math.isfinite(high) and low <= high and 1 <= count <= MOST_VALUES):
            raise ConfigError(
                f"--threshold {text[:60]}: must be A:B:N with A at most B and N from 1 to {MOST_VALUES}, such as "
                "0.1:0.9:5"
            )
        return [float(f"{value:.6g}") for value in np.linspace(low, high, count)]
    found = [_number(text, part) for part in text.split(",")]
    if len(found) > MOST_VALUES:
        raise ConfigError(f"--threshold: has {len(found)} values; give at most {MOST_VALUES}")
    return list(dict.fromkeys(found))


def _number(text: str, part: str) -> float:
    try:
        return float(part)
    except ValueError:
        raise ConfigError(
            f"--threshold {text[:60]!r}: {part.strip()[:30]!r} is no number; give one such as 0.7, or A:B:N such as "
            "0.1:0.9:5"
        ) from None


def points_of(accept: str, values: list[float]) -> list[Point]:
    """Return the points of a rule, the roles alone first: they are what the others are compared with.

    Raises:
        ConfigError: when the rule cannot have a value.
    """
    for value in values:
        Acceptance(accept, value)
    return [Point(TARGET), Point(DRAFT), *(Point(accept, value) for value in values)]


def plain(value: float | None) -> Any:
    """Return a value as JSON can hold it: infinity by name."""
    return value if value is None or math.isfinite(value) else ("inf" if value > 0 else "-inf")
