"""Every kind of run by its name, found by existing."""

from __future__ import annotations

import functools
import importlib
import pkgutil
from collections.abc import Mapping
from pathlib import Path

import dynlora.kinds
from dynlora.errors import ConfigError
from dynlora.kinds.run_kind import RunKind
from dynlora.store.meta import kind_of
from dynlora.store.reader import RunReader


@functools.cache
def registry() -> Mapping[str, RunKind]:
    """Return every kind by its name, the name of its folder."""
    kinds: dict[str, RunKind] = {}
    for item in pkgutil.iter_modules(dynlora.kinds.__path__):
        if item.ispkg:
            module = importlib.import_module(f"{dynlora.kinds.__name__}.{item.name}.kind")
            kinds |= {
                value.name: value()
                for value in vars(module).values()
                if isinstance(value, type) and issubclass(value, RunKind) and value.__module__ == module.__name__
            }
    return kinds


def kind_of_run(folder: Path) -> RunKind:
    """Return the kind of a run.

    Raises:
        ConfigError: when this version does not know it.
        RunNotFoundError: when there is no such run.
        CorruptRunError: when it cannot be read.
    """
    with RunReader(folder) as reader:
        name = kind_of(reader.meta(("kind",)))
    kind = registry().get(name)
    if kind is None:
        raise ConfigError(f"run {folder.name}: this version does not know its kind; use a newer one")
    return kind
