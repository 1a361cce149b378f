"""JSON that goes into and comes out of a run: finite numbers, clean text, bounded depth."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np

from dynlora.errors import CorruptRunError
from dynlora.store.schema import MAX_JSON_DEPTH, MAX_TEXT_BYTES
from dynlora.text import clean_text

MAX_WHOLE = 2**53
"""Largest whole number that is read: a float holds none beyond it exactly, and nothing here holds one beyond 2**63."""


def dump(value: Any) -> str:
    """Return compact JSON; NaN and infinities become null, numpy numbers and arrays plain ones.

    Raises:
        ValueError: when the value is nested deeper or larger than a reader accepts.
        TypeError: when it holds something JSON has no form for.
    """
    text = json.dumps(_plain(value, 0), ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    if len(text.encode()) > MAX_TEXT_BYTES:
        raise ValueError(f"a JSON value of {len(text)} characters is too large for the run store")
    return text


def load(text: str) -> Any:
    """Return the value of JSON read from a run; null in the place of a number that nothing here can hold.

    Raises:
        CorruptRunError: when it is no JSON or nested too deeply.
    """
    try:
        return _clean(json.loads(text), 0)
    except (ValueError, RecursionError) as error:
        raise CorruptRunError(f"a JSON value of the run cannot be read ({type(error).__name__})") from None


def load_all(texts: list[str]) -> list[Any]:
    """Return the values of several JSON texts, parsed at once because a list of 1,000 runs parses 10,000 of them.

    Raises:
        CorruptRunError: when one of them is no JSON or nested too deeply.
    """
    values = load("[" + ",".join(texts) + "]")
    if len(values) != len(texts):
        raise CorruptRunError("a JSON value of the run cannot be read")
    return values


def load_object(text: str) -> dict[str, Any]:
    """Return the value of a JSON object read from a run.

    Raises:
        CorruptRunError: when it is anything but an object.
    """
    value = load(text)
    if not isinstance(value, dict):
        raise CorruptRunError("a JSON value of the run is not an object")
    return value  # pyright: ignore[reportUnknownVariableType]


def clip(text: str, limit: int) -> str:
    """Return clean text of at most `limit` characters, its end marked when something was cut."""
    text = clean_text(text)
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _plain(value: Any, depth: int) -> Any:
    if depth > MAX_JSON_DEPTH:
        raise ValueError(f"a JSON value is nested deeper than {MAX_JSON_DEPTH}")
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, str):
        return clean_text(value)
    if isinstance(value, dict):
        return {clean_text(str(key)): _plain(item, depth + 1) for key, item in value.items()}  # pyright: ignore
    if isinstance(value, list | tuple):
        return [_plain(item, depth + 1) for item in value]  # pyright: ignore
    return value


def _clean(value: Any, depth: int) -> Any:
    if depth > MAX_JSON_DEPTH + 1:
        raise ValueError("too deep")
    if isinstance(value, str):
        return clean_text(value)
    if isinstance(value, dict):
        return {clean_text(key): _clean(item, depth + 1) for key, item in value.items()}  # pyright: ignore
    if isinstance(value, list):
        return [_clean(item, depth + 1) for item in value]  # pyright: ignore
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, int) and abs(value) > MAX_WHOLE:
        return None
    return value
