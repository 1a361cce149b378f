"""One method per file or folder; what defines a `Strategy` here is registered by existing.

A small method is `name.py`; one that brings layers or edits of its own is `name/`, its strategy in `strategy.py`.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import importlib
import pkgutil
import types
import typing
from collections.abc import Mapping
from typing import Any

from dynlora.engine.strategy import Strategy
from dynlora.errors import ConfigError, UnknownStrategyError


@functools.cache
def registry() -> dict[str, type[Strategy]]:
    """Return every strategy class by its name, the name of its file or folder."""
    found = {}
    for item in pkgutil.iter_modules(__path__):
        module = importlib.import_module(f"{__name__}.{item.name}" + (".strategy" if item.ispkg else ""))
        classes = [
            value
            for value in vars(module).values()
            if isinstance(value, type) and issubclass(value, Strategy) and value.__module__ == module.__name__
        ]
        if classes:
            found[item.name] = classes[-1]
    return dict(sorted(found.items()))


def strategy_class(name: str) -> type[Strategy]:
    """Return the strategy registered under `name`.

    Raises:
        UnknownStrategyError: naming the nearest registered one.
    """
    known = registry()
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]}?" if near else "choose one of " + ", ".join(known)
        raise UnknownStrategyError(f"strategy.name={name}: no such strategy; {hint}")
    return known[name]


def build(name: str, values: Mapping[str, Any]) -> Strategy:
    """Return a strategy with its hyper-parameters checked.

    Raises:
        UnknownStrategyError: when no strategy has that name.
        ConfigError: when a field is unknown, of the wrong type or out of range.
    """
    cls = strategy_class(name)
    fields = {f.name: f for f in dataclasses.fields(cls) if f.init}
    hints = typing.get_type_hints(cls)
    checked = {}
    for key, value in values.items():
        if key not in fields:
            near = difflib.get_close_matches(key, fields, n=1, cutoff=0.6)
            hint = f"did you mean strategy.{near[0]}?" if near else f"{name} has " + ", ".join(fields)
            raise ConfigError(f"strategy.{key}={value}: unknown field of {name}; {hint}")
        checked[key] = _checked(key, value, hints[key], fields[key].metadata)
    return cls(**checked)


def describe(name: str) -> dict[str, Any]:
    """Return what a page or a person wants to know of a strategy, as plain values."""
    cls = strategy_class(name)
    hints = typing.get_type_hints(cls)
    return {
        "name": name,
        "title": cls.title or name,
        "summary": cls.summary,
        "formula": cls.formula,
        "paper": cls.paper,
        "fidelity": cls.fidelity,
        "cost": cls.cost,
        "budget_in": cls.budget_in,
        "signals": {name: dataclasses.asdict(signal) for name, signal in cls.own_signals.items()},
        "doc": (cls.__doc__ or "").strip(),
        "fields": [_field(f, hints[f.name]) for f in dataclasses.fields(cls) if f.init],
    }


def _field(f: dataclasses.Field[Any], hint: Any) -> dict[str, Any]:
    """Return one hyper-parameter as plain values."""
    kind, optional = _kind(hint)
    return {
        "name": f.name,
        "type": kind.__name__,
        "optional": optional,
        "default": f.default,
        "help": f.metadata.get("help", ""),
        "unit": f.metadata.get("unit", ""),
        "choices": list(f.metadata.get("choices") or ()),
        **f.metadata.get("bounds", {}),
    }


def _kind(hint: Any) -> tuple[type, bool]:
    """Return the plain type of a hint and whether it may be empty."""
    options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    kinds = [option for option in options if option is not type(None)]
    return kinds[0], type(None) in options


def _checked(key: str, value: Any, hint: Any, metadata: Mapping[str, Any]) -> Any:
    """Return a value of the field's type within its bounds."""
    kind, optional = _kind(hint)
    shown = f"strategy.{key}={value}"
    meaning = metadata.get("help", "")
    if value is None and optional:
        return None
    value = _coerced(value, kind)
    if value is None:
        raise ConfigError(f"{shown}: must be {_TYPE_WORDS.get(kind, kind.__name__)}; {meaning}")
    choices = metadata.get("choices")
    if choices and value not in choices:
        raise ConfigError(f"{shown}: must be one of {', '.join(choices)}; {meaning}")
    for rule, bound in metadata.get("bounds", {}).items():
        if not _RULES[rule][1](value, bound):
            raise ConfigError(f"{shown}: must be {_RULES[rule][0]} {bound}; {meaning}")
    return value


def _coerced(value: Any, kind: type) -> Any:
    """Return `value` as `kind`, or None when it is something else; YAML reads on/off as booleans."""
    if kind is str and isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, bool) != (kind is bool):
        return None
    if kind is float and isinstance(value, int | float):
        return float(value) if abs(float(value)) != float("inf") and value == value else None
    if kind is int and isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, kind) else None


_TYPE_WORDS = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}
_RULES = {
    "ge": ("at least", lambda value, bound: value >= bound),
    "gt": ("greater than", lambda value, bound: value > bound),
    "le": ("at most", lambda value, bound: value <= bound),
    "lt": ("less than", lambda value, bound: value < bound),
}
