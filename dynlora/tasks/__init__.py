"""Tasks: what a model learns, one file each; a file here that defines a `Task` is registered by existing.

Everything that depends on the task is behind `base.Task`. To add one, add a file: nothing else asks for a task's name.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from dynlora.data_files.columns import Columns
from dynlora.tasks.base import Task
from dynlora.tasks.labels import LabelColumn


@functools.cache
def registry() -> dict[str, type[Task]]:
    """Return every task class by its name, those that claim data first in front."""
    found = []
    for item in pkgutil.iter_modules(__path__):
        module = importlib.import_module(f"{__name__}.{item.name}")
        found += [
            value
            for value in vars(module).values()
            if isinstance(value, type) and issubclass(value, Task) and value.__module__ == module.__name__
        ]
    concrete = [cls for cls in found if cls is not Task]
    return {cls.name: cls for cls in sorted(concrete, key=lambda cls: (cls.order, cls.name))}


def build(name: str, labels: Sequence[str] = (), settings: Mapping[str, str] | None = None) -> Task:
    """Return the task that a checkpoint, or a run, names.

    Args:
        name: of the task.
        labels: names of its classes; none for a task without.
        settings: what `Task.settings` returned.
    """
    kind = registry()[name]
    known = {item.name for item in fields(kind)} - {"labels"}
    return kind(tuple(labels), **{name: value for name, value in (settings or {}).items() if name in known})


def of_columns(name: str, columns: Columns) -> type[Task] | None:
    """Return the task that is named, or that the columns alone show; None where the labels decide.

    Args:
        name: of a task, or `auto`.
        columns: those that are learned from.
    """
    kinds = registry()
    return kinds[name] if name != "auto" else next((cls for cls in kinds.values() if cls.claims_columns(columns)), None)


def of_labels(kind: type[Task] | None, column: LabelColumn) -> Task:
    """Return the task of labelled data: of a kind, or the first that claims the labels.

    Raises:
        DataError: when the labels do not fit the task.
    """
    return (kind or next(cls for cls in registry().values() if cls.claims(column))).of(column)


def of_model(model: Any) -> Task:
    """Return the task that a model of one's own was made for, by its config; classification where that says nothing."""
    config = getattr(model, "config", None)
    return next(cls(()) for cls in registry().values() if cls.made(config))


__all__ = ["LabelColumn", "Task", "build", "of_columns", "of_labels", "of_model", "registry"]
