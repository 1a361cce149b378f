"""What a run says of itself, brought to the kinds it has to be of: whoever shows it need not look at each value again.

A value of another kind counts as one that was never written.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, cast

from dynlora.config import RunConfig
from dynlora.renamed_settings import with_current_names
from dynlora.store.jsontext import MAX_WHOLE

SECTIONS = ("model", "data", "adapter", "strategy", "train", "log")
"""Keys of a configuration that hold keys of their own."""

MAX_DRAWN = 1e300
"""Larger numbers are no measurement, and axes cannot hold them."""


def table(value: Any) -> dict[str, Any]:
    """Return a JSON object, empty when the value is none."""
    return cast(dict[str, Any], value) if isinstance(value, dict) else {}


def is_number(value: Any) -> bool:
    """Say whether a JSON value is a number."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def numbers(value: Any) -> dict[str, float | None]:
    """Return the numeric entries of a JSON object, null for NaN; empty when it is no object."""
    return {key: item for key, item in table(value).items() if item is None or is_number(item)}


def counts(value: Any) -> dict[str, int]:
    """Return the entries of a JSON object that count something; empty when it is no object."""
    return {key: item for key, item in table(value).items() if is_count(item)}


def is_count(value: Any) -> bool:
    """Say whether a value is a whole number from zero on that every reader can hold."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_WHOLE


def count(value: Any) -> int:
    """Return a whole number from zero on, zero for anything else."""
    return value if is_count(value) else 0


def items(value: Any, limit: int) -> list[Any]:
    """Return the first items of a JSON list, none for anything else."""
    return cast(list[Any], value)[:limit] if isinstance(value, list) else []


def short_text(value: Any, limit: int) -> str:
    """Return the beginning of a text, or of a number as one; empty for anything else."""
    return (text(value) or "")[:limit]


def finite(value: Any) -> float | None:
    """Return a finite number that can be drawn, None for anything else."""
    return float(value) if is_number(value) and abs(value) < MAX_DRAWN else None


def whole(value: Any) -> int | None:
    """Return a whole number, None for anything else."""
    return value if isinstance(value, int) and not isinstance(value, bool) and abs(value) <= MAX_WHOLE else None


def moment(value: Any) -> float | None:
    """Return a time in seconds since the epoch, None for what is none."""
    fits = is_number(value) and 0 <= value <= MAX_WHOLE
    return float(value) if fits and math.isfinite(value) else None


def text(value: Any) -> str | None:
    """Return a text; a number as one; None for anything else."""
    return value if isinstance(value, str) else str(value) if is_number(value) else None


def config(value: Any) -> dict[str, Any]:
    """Return a configuration in which every section is an object, settings of the method under their current names."""
    found = {key: table(item) if key in SECTIONS else item for key, item in table(value).items()}
    return {**found, "strategy": with_current_names(found["strategy"])} if "strategy" in found else found


def section(config: Any, name: str) -> Mapping[str, Any]:
    """Return a section of a configuration that nobody checked, empty when it has none."""
    return table(table(config).get(name))


def meta_of(config: RunConfig, fidelity: str | None, own_signals: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is kept of a run before its data is read; the rest is added when it is.

    Args:
        config: of the run.
        fidelity: of its method.
        own_signals: what its method records, as plain values by name.
    """
    return {
        "name": config.title,
        "strategy": config.strategy.name,
        "fidelity": fidelity,
        "own_signals": dict(own_signals),
        "model": config.model.name,
        "data": config.data.source,
        "seed": config.seed,
        "config": config.model_dump(mode="json"),
    }
