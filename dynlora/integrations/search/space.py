"""What a search looks through: a range or a list of values for each setting, as on the command line."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dynlora.config_files import parse_value
from dynlora.errors import ConfigError
from dynlora.jobs.sweep import check_once

RANGE = re.compile(r"\s*([^\s,:]+?)\s*\.\.\s*([^\s,:]+?)\s*(:log)?\s*")
_BEGINS_AS_RANGE = re.compile(r"\s*[-+]?[\d.]+(e[-+]?\d+)?\.\.", re.IGNORECASE)
"""A number and two points: a path of a list may have the points, and no number before them."""

EXAMPLES = "a range 1e-4..1e-2:log, 0.0..0.3 or 1..16, or a list a,b,c"

MOST_VALUES = 100
"""Most values of a list."""


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, both included.

    Attributes:
        low: least value.
        high: greatest value.
        whole: whether they are whole numbers.
        logarithmic: whether their logarithm is drawn evenly, so that each decade gets as many trials.
    """

    low: float
    high: float
    whole: bool
    logarithmic: bool

    def holds(self, value: Any) -> bool:
        """Say whether a value lies in the range."""
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        return is_number and self.low <= value <= self.high and (not self.whole or float(value).is_integer())

    def suggest(self, trial: Any, key: str) -> Any:
        """Return the value that a trial of Optuna is given."""
        if self.whole:
            return trial.suggest_int(key, int(self.low), int(self.high), log=self.logarithmic)
        return trial.suggest_float(key, self.low, self.high, log=self.logarithmic)

    def text(self) -> str:
        """Return the range as it is written."""
        ends = [f"{int(end)}" if self.whole else f"{end:g}" for end in (self.low, self.high)]
        return "..".join(ends) + (":log" if self.logarithmic else "")


@dataclass(frozen=True)
class Choice:
    """One of several values.

    Attributes:
        values: texts, numbers, booleans or None.
    """

    values: tuple[Any, ...]

    def holds(self, value: Any) -> bool:
        """Say whether a value is one of them."""
        return any(value == one and isinstance(value, bool) == isinstance(one, bool) for one in self.values)

    def suggest(self, trial: Any, key: str) -> Any:
        """Return the value that a trial of Optuna is given."""
        return trial.suggest_categorical(key, list(self.values))

    def text(self) -> str:
        """Return the list as it is written."""
        return ",".join(map(str, self.values))


Space = Mapping[str, Range | Choice]
"""What is searched, by dotted key of a setting."""


def space_of(listed: Mapping[str, str]) -> dict[str, Range | Choice]:
    """Return what is searched.

    Args:
        listed: dotted key to text, such as `1e-4..1e-2:log`.

    Raises:
        ConfigError: where nothing is searched, or a text is neither a range nor a list.
    """
    space = {key: _one(key, text) for key, text in listed.items()}
    if not any(isinstance(one, Range) or len(one.values) > 1 for one in space.values()):
        raise ConfigError(f"--search: no setting varies; give one or more as --set KEY=VALUES, {EXAMPLES}")
    return space


def _one(key: str, text: str) -> Range | Choice:
    """Return what one text stands for."""
    if match := RANGE.fullmatch(text):
        return _range(key, text, parse_value(match[1]), parse_value(match[2]), logarithmic=match[3] is not None)
    if _BEGINS_AS_RANGE.match(text):
        raise ConfigError(f"{key}={text[:60]}: is not a range that can be read; give {EXAMPLES}")
    whole = parse_value(text)
    if isinstance(whole, list | dict):
        return Choice((whole,))  # such as adapter.targets=[query, value]: one value, the same in all trials
    values = tuple(parse_value(part.strip()) for part in text.split(","))
    if len(values) > MOST_VALUES:
        raise ConfigError(f"{key}={text[:60]}: must be {EXAMPLES}, of at most {MOST_VALUES} values")
    check_once(key, values)
    return Choice(values)


def _range(key: str, text: str, low: Any, high: Any, *, logarithmic: bool) -> Range:
    """Return a range after a look at its ends."""
    ends = (low, high)
    if not all(isinstance(end, int | float) and not isinstance(end, bool) and math.isfinite(end) for end in ends):
        raise ConfigError(f"{key}={text}: the ends of a range must be numbers, such as 1e-4..1e-2:log")
    if low == high:
        raise ConfigError(f"{key}={text}: a range must have two ends; give one value, {key}={low}, or widen it")
    if not low < high:
        raise ConfigError(f"{key}={text}: a range must begin with its lesser end; write {high}..{low}")
    if logarithmic and low <= 0:
        raise ConfigError(f"{key}={text}: a logarithmic range must begin above 0; raise its lesser end, or drop :log")
    return Range(float(low), float(high), all(isinstance(end, int) for end in ends), logarithmic)
