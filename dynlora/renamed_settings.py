"""Old names of settings and of their values, which stay accepted."""

from __future__ import annotations

import functools
import logging
from collections.abc import Mapping
from typing import Any

from dynlora.errors import ConfigError

logger = logging.getLogger(__name__)

RENAMED: Mapping[str, Mapping[str, str]] = {
    "": {"guard": "lr_backoff"},
    "dynamic": {
        "lot": "allocation_seed",
        "first_ranks": "initial_ranks",
        "commit": "one_shot",
        "promises": "gain_scope",
        "rows": "new_row_init",
    },
    "elalora": {"counted_in": "budget_unit", "restart": "reset_optimizer"},
    "l1ra": {"counted_in": "budget_unit", "restart": "reset_optimizer"},
    "eva": {"budget": "budget_unit"},
}
"""Old names of a method's settings, and of every method's under the empty name, which are still accepted."""

RENAMED_VALUES: Mapping[str, Mapping[str, Mapping[str, str]]] = {
    "dynamic": {"score": {"signal": "signed", "uncertain": "uncertainty"}},
}
"""Old names of values of a method's settings, which are still accepted."""


def accept_old_names(strategy: Mapping[str, Any]) -> dict[str, Any]:
    """Return a strategy section with its settings under their current names, and tell the log of each old one.

    Raises:
        ConfigError: when a setting is given under its old and its new name.
    """
    found = with_current_names(strategy)
    for key, value in strategy.items():
        new = _new_name(str(strategy.get("name", "dynamic")), str(key))
        if new != key and new in strategy:
            raise ConfigError(f"strategy.{key}={value}: is the old name of strategy.{new}, also given; drop it")
        if new != key or found[new] != value:
            _say_once(f"strategy.{key}={value}", f"strategy.{new}={found[new]}")
    return found


def with_current_names(strategy: Mapping[str, Any]) -> dict[str, Any]:
    """Return a strategy section, of whatever version, with settings and values under their current names."""
    method = str(strategy.get("name", "dynamic"))
    values = RENAMED_VALUES.get(method, {})
    found: dict[str, Any] = {}
    for key, value in strategy.items():
        new = _new_name(method, str(key))
        if new == key or new not in strategy:
            found[new] = values.get(new, {}).get(value, value) if isinstance(value, str) else value
    return found


def _new_name(method: str, key: str) -> str:
    """Return the current name of a method's setting."""
    return {**RENAMED[""], **RENAMED.get(method, {})}.get(key, key)


@functools.cache
def _say_once(old: str, new: str) -> None:
    """Tell the log of an old name, once in the life of a process."""
    logger.warning("%s is now called %s; the old name is still accepted", old, new)
