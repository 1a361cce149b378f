"""Values of a file that is not trusted: lists, counts and numbers, or a ValueError."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

from dynlora.errors import CorruptRunError
from dynlora.safe_files import read_plain
from dynlora.store import jsontext

Found = TypeVar("Found")


def read_checked(path: Path, most: int, check: Callable[[Mapping[str, Any]], Found]) -> Found | None:
    """Return what `check` makes of a JSON file of at most `most` bytes; None where there is none to be trusted."""
    text = read_plain(path, most)
    if text is None:
        return None
    try:
        return check(jsontext.load_object(text))
    except (CorruptRunError, TypeError, ValueError, KeyError, AttributeError):
        return None


def items(value: Any, limit: int) -> Sequence[Any]:
    """Return a list of at most `limit` items.

    Raises:
        ValueError: when it is none, or longer.
    """
    found = cast(list[Any], value) if isinstance(value, list) else None
    if found is None or len(found) > limit:
        raise ValueError("no list, or too long a one")
    return found


def count(value: Any) -> int:
    """Return a whole number from zero on.

    Raises:
        ValueError: when it is none.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**53:
        raise ValueError("no count")
    return value


def number(value: Any) -> float:
    """Return a finite number.

    Raises:
        ValueError: when it is none.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError("no number")
    return float(value)
