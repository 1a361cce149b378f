"""Every kind of run by its name, found by existing."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from pathlib import Path

import dynlora.kinds
from dynlora.discovery import classes_in, joined, plugged_in
from dynlora.errors import ConfigError
from dynlora.kinds.run_kind import RunKind
from dynlora.store.meta import kind_of
from dynlora.store.reader import RunReader


@functools.cache
def registry() -> Mapping[str, RunKind]:
    """Return every kind by its name: that of its folder, or that a plug-in declares."""
    folders = classes_in(dynlora.kinds, RunKind, lambda item: f"{item.name}.kind" * item.ispkg)
    own = {kind.name: kind for _, kind in folders}
    kinds: dict[str, Callable[[], RunKind]] = {**joined(own, plugged_in("kinds", RunKind))}
    return {name: made() for name, made in kinds.items()}


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
