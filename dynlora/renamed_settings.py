"""Old names of settings, which stay accepted, settings that are gone, and defaults that changed."""

from __future__ import annotations

import functools
import logging
from collections.abc import Mapping
from typing import Any

from dynlora.errors import ConfigError

logger = logging.getLogger(__name__)

RENAMED: Mapping[str, Mapping[str, str]] = {
    "": {"guard": "lr_backoff"},
    "dynamic": {"lot": "allocation_seed"},
    "elalora": {"counted_in": "budget_unit", "restart": "reset_optimizer"},
    "l1ra": {"counted_in": "budget_unit", "restart": "reset_optimizer"},
    "eva": {"budget": "budget_unit"},
}
"""Old names of a method's settings, and of every method's under the empty name, which are still accepted."""

LEARNED = "what was learned"
"""What ranks are set by now: how the first reallocation was made matters to no run that is past it."""

GONE: Mapping[str, Mapping[str, Any]] = {
    "dynamic": {
        "score": "saliency",
        "solver": "swap",
        "growth": "weakest",
        "one_shot": True,
        "commit": True,
        "new_row_init": "random",
        "rows": "random",
        "initial_ranks": "uniform",
        "first_ranks": "uniform",
        "smoothing": 0.85,
        "hysteresis": 0.1,
        "moves_per_module": 2,
        "temperature": 1.0,
        "rank_by": LEARNED,
        "promises": LEARNED,
        "gain_scope": LEARNED,
    },
}
"""Settings that a method no longer has, under all their names, and the value that it always takes now.

No other value was shown to help; docs/methods/dynamic.md has what each of them gave.
"""

CHANGED_DEFAULTS: Mapping[str, Mapping[str, tuple[Any, Any]]] = {
    "dynamic": {"gates": ("module", "scale"), "explore": (1.0, None), "scale_lr_ratio": (1.0, None)},
}
"""Settings of a method whose default changed: the earlier one, which runs without the setting have, and that of now.

A run writes such a default to its folder, so that a later change leaves it as it is.
"""

UNCHANGED_WITH: Mapping[str, Mapping[str, tuple[str, tuple[str, ...]]]] = {
    "dynamic": {"scale_lr_ratio": ("gates", ("off", "scale"))},
}
"""Settings of `CHANGED_DEFAULTS` that mean the same as before where another setting has one of these values."""


def accept_old_names(strategy: Mapping[str, Any]) -> dict[str, Any]:
    """Return a strategy section with its settings under their current names, and tell the log of each old one.

    Raises:
        ConfigError: when a setting is given under its old and its new name.
    """
    current, method = with_current_names(strategy), _method(strategy)
    gone = GONE.get(method, {})
    for key, value in strategy.items():
        if key in gone:
            _say_gone(f"strategy.{key}", str(value), str(gone[key]))
            continue
        new = _new_name(method, str(key))
        if new != key and new in strategy:
            raise ConfigError(f"strategy.{key}={value}: is the old name of strategy.{new}, also given; drop it")
        if new != key:
            _say_once(f"strategy.{key}={value}", f"strategy.{new}={current[new]}")
    return current


def with_current_names(strategy: Mapping[str, Any]) -> dict[str, Any]:
    """Return a strategy section, of whatever version, with settings and values under their current names."""
    method = _method(strategy)
    current: dict[str, Any] = {}
    for key, value in strategy.items():
        if key in GONE.get(method, {}):
            continue
        new = _new_name(method, str(key))
        if new == key or new not in strategy:
            current[new] = value
    return current


def with_earlier_defaults(strategy: Mapping[str, Any]) -> dict[str, Any]:
    """Return the strategy section of a run's folder with the defaults that it was made with."""
    changed = _changed_defaults(strategy)
    made = {**{key: before for key, (before, _) in changed.items()}, **strategy}
    for key, (other, values) in UNCHANGED_WITH.get(_method(strategy), {}).items():
        if key not in strategy and made[other] in values:
            made[key] = changed[key][1]
    return made


def with_written_defaults(strategy: Mapping[str, Any]) -> dict[str, Any]:
    """Return a strategy section as a run's folder keeps it: defaults that changed once are written down."""
    return {**strategy, **{key: now for key, (_, now) in _changed_defaults(strategy).items() if key not in strategy}}


def without_written_defaults(strategy: Mapping[str, Any]) -> dict[str, Any]:
    """Return a strategy section without the defaults that a run wrote down: another method has no such setting."""
    defaults = {key: now for key, (_, now) in _changed_defaults(strategy).items()}
    return {key: value for key, value in strategy.items() if key not in defaults or value != defaults[key]}


def _changed_defaults(strategy: Mapping[str, Any]) -> Mapping[str, tuple[Any, Any]]:
    """Return the settings of a section's method whose default changed."""
    return CHANGED_DEFAULTS.get(_method(strategy), {})


def gone_values(strategy: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a strategy section that are gone, where they had another value than all runs have now."""
    gone = GONE.get(_method(strategy), {})
    return {key: value for key, value in strategy.items() if key in gone and gone[key] not in (value, LEARNED)}


def _method(strategy: Mapping[str, Any]) -> str:
    """Return the method of a strategy section."""
    return str(strategy.get("name", "dynamic"))


def _new_name(method: str, key: str) -> str:
    """Return the current name of a method's setting."""
    return {**RENAMED[""], **RENAMED.get(method, {})}.get(key, key)


@functools.cache
def _say_once(old: str, new: str) -> None:
    """Tell the log of an old name, once in the life of a process."""
    logger.warning("%s is now called %s; the old name is still accepted", old, new)


@functools.cache
def _say_gone(setting: str, value: str, taken: str) -> None:
    """Tell the log of a setting that is gone, once in the life of a process."""
    if value == taken:
        logger.warning("%s=%s is no longer a setting: it is what the method does; leave it out", setting, value)
        return
    logger.warning(
        "%s=%s is no longer a setting, as it was not shown to help; the run uses %s (see docs/methods/dynamic.md)",
        setting,
        value,
        taken,
    )
