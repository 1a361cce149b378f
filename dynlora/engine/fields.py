"""How the fields of a method are declared: hyper-parameters with meaning, unit and range, and state."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import field
from typing import Any


def setting(
    default: Any,
    help: str,
    *,
    unit: str = "",
    ge: float | None = None,
    gt: float | None = None,
    le: float | None = None,
    lt: float | None = None,
    choices: Sequence[str] | None = None,
) -> Any:
    """Declare a hyper-parameter: its default, what it means, its unit, and the values it may take."""
    bounds = {"ge": ge, "gt": gt, "le": le, "lt": lt}
    metadata = {
        "help": help,
        "unit": unit,
        "choices": choices,
        "bounds": {k: v for k, v in bounds.items() if v is not None},
    }
    return field(default=default, metadata=metadata)


def state(factory: Callable[[], Any]) -> Any:
    """Declare a state field: saved with every checkpoint; numbers, tensors, and lists or dicts of them."""
    return field(init=False, default_factory=factory, repr=False, compare=False)
