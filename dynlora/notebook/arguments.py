"""Arguments of figures, checked: each mistake is one sentence that says what may stand there."""

from __future__ import annotations

import difflib
import operator
from collections.abc import Iterable

from dynlora.errors import ConfigError
from dynlora.text import listed

MOST_NAMED = 12
"""Options that a message names."""


def within(name: str, value: int | None, low: int, high: int, usual: int) -> int:
    """Return a step that lies between two others, the usual one where none is given.

    Args:
        name: of the argument.
        value: of it.
        low: first step that it may be.
        high: last step that it may be.
        usual: taken for None.

    Raises:
        ConfigError: when it is no such step.
    """
    if value is None:
        return usual
    try:
        step = operator.index(value)
    except TypeError:
        step = low - 1
    if isinstance(value, bool) or not low <= step <= high:
        raise ConfigError(f"{name}={value!r}: must be a whole number, a step from {low} to {high}")
    return step


def one_of(name: str, value: str, options: Iterable[str]) -> str:
    """Return a value that is among some options.

    Args:
        name: of the argument.
        value: of it.
        options: that it may be.

    Raises:
        ConfigError: when it is none of them.
    """
    known = list(options)
    if value in known:
        return value
    near = difflib.get_close_matches(str(value), known, n=1)
    remedy = f"did you mean {near[0]!r}?" if near else f"must be one of {listed(known, MOST_NAMED)}"
    raise ConfigError(f"{name}={value!r}: {remedy}")
