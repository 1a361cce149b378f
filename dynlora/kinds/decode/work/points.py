"""Which points are decoded: a rule at one or several values, and each role alone."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from dynlora.errors import ConfigError
from dynlora.kinds.decode.work.acceptance import Acceptance
from dynlora.kinds.decode.work.solve import DRAFT, TARGET, Point

MOST_VALUES = 101
_RANGE = re.compile(r"(?P<low>[^:]+?)(?::|\.\.)(?P<high>[^:]+):(?P<count>\d{1,6})")


def values_of(text: str) -> list[float]:
    """Return the values of a rule: one number, several with commas between, or A:B:N for N values from A to B.

    Raises:
        ConfigError: when the text is none of these; one sentence.
    """
    if found := _RANGE.fullmatch(text.strip()):
        low, high, count = _number(text, found["low"]), _number(text, found["high"]), int(found["count"])
        if low > high or not 1 <= count <= MOST_VALUES:
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
        value = float(part)
    except ValueError:
        value = math.nan
    if math.isinf(value):
        alone = "target" if value > 0 else "draft"
        raise ConfigError(f"--threshold {text[:60]}: is the {alone} alone, which is decoded anyway; give a number")
    if math.isnan(value):
        raise ConfigError(
            f"--threshold {text[:60]!r}: {part.strip()[:30]!r} is not a number; give one such as 0.7, or A:B:N such as "
            "0.1:0.9:5"
        )
    return value


def points_of(accept: str, values: Sequence[float], control: Sequence[float], *, ends: bool) -> list[Point]:
    """Return the points of a decode, each key once.

    Args:
        accept: the rule.
        values: of the rule.
        control: probabilities of steps that are kept by chance.
        ends: also each role alone, first: the others are compared with the target.

    Raises:
        ConfigError: when a rule cannot have a value.
    """
    points = [Point(accept, value) for value in values] + [Point("constant", value) for value in control]
    for point in points:
        Acceptance(point.accept, point.value or 0.0)
    alone = [Point(TARGET), Point(DRAFT)] if ends else []
    by_key: dict[str, Point] = {}
    for point in dict.fromkeys([*alone, *points]):
        by_key.setdefault(point.key, point)  # records know a point by its key, which has six digits of the value
    return list(by_key.values())


def plain(value: float | None) -> Any:
    """Return a value as JSON can hold it: infinity by name."""
    return value if value is None or math.isfinite(value) else ("inf" if value > 0 else "-inf")
