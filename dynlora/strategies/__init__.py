"""One method per file, with its edits; what defines a `Strategy` here is registered by existing."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import sys
from collections.abc import Mapping
from typing import Any

from dynlora.config import Setting
from dynlora.discovery import classes_in, joined, plugged_in
from dynlora.engine.fields import settings_model
from dynlora.engine.strategy import Strategy
from dynlora.errors import UnknownStrategyError, checked
from dynlora.renamed_settings import accept_old_names


@functools.cache
def registry() -> dict[str, type[Strategy]]:
    """Return every strategy class by its name: that of its file, or that a plug-in declares."""
    own = dict(classes_in(sys.modules[__name__], Strategy, lambda item: item.name))
    return dict(sorted(joined(own, plugged_in("strategies", Strategy)).items()))


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
    """Return a strategy with its hyper-parameters checked; names they had before are accepted.

    Raises:
        UnknownStrategyError: when no strategy has that name.
        ConfigError: when a field is unknown, of the wrong type or out of range.
    """
    cls = strategy_class(name)
    model = settings_model(cls)
    given = {key: value for key, value in accept_old_names({"name": name, **values}).items() if key != "name"}
    settings = checked(model, given, "strategy.")
    return cls(**{key: getattr(settings, key) for key in given})


def describe(name: str) -> dict[str, Any]:
    """Return what a page or a person wants to know of a strategy, as plain values."""
    cls = strategy_class(name)
    return {
        "name": name,
        "title": cls.title or name,
        "summary": cls.summary,
        "formula": cls.formula,
        "paper": cls.paper,
        "fidelity": cls.fidelity,
        "cost": cls.cost,
        "step_cost": cls.step_cost,
        "state_memory": cls.state_memory,
        "tasks": cls.learns(),
        "budget_in": cls.budget_in,
        "moves": _moves(cls),
        "signals": {name: dataclasses.asdict(signal) for name, signal in cls.own_signals.items()},
        "doc": (cls.__doc__ or "").strip(),
        "fields": [dataclasses.asdict(Setting.of(*field)) for field in settings_model(cls).model_fields.items()],
    }


def _moves(cls: type[Strategy]) -> str:
    """Return when a method changes the adapters beyond training them: `during` training, `before` it, or `never`."""
    if cls.allocate is not Strategy.allocate:
        return "during"
    is_set_before = cls.ranks is not Strategy.ranks or cls.begin is not Strategy.begin
    return "before" if is_set_before else "never"
