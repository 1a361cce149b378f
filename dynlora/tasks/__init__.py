"""Tasks: what a model learns, one file each; a file here that defines a `Task` is registered by existing.

Everything that depends on the task is behind `base.Task`. To add one, add a file: nothing else asks for a task's name.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from typing import Any

from dynlora.data_files.columns import Columns
from dynlora.discovery import classes_in, joined, plugged_in
from dynlora.errors import DataError
from dynlora.tasks.base import LabelledTask, Task, UnlabelledTask, WritingTask
from dynlora.tasks.labels import LabelColumn


@functools.cache
def registry() -> dict[str, type[Task]]:
    """Return every task class by its name, that a plug-in declares among them; those that claim data first in front."""
    own = {kind.name: kind for _, kind in classes_in(sys.modules[__name__], Task, lambda item: item.name)}
    kinds = joined(own, plugged_in("tasks", Task))
    return dict(sorted(kinds.items(), key=lambda item: (item[1].order, item[0])))


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


def choose(name: str, section: Any, columns: Columns, labels: Callable[[], LabelColumn]) -> Task:
    """Return the task of data: the one that is named, else the one that its columns show, else its labels.

    Args:
        name: of a task, or `auto`.
        section: section `data` of the configuration.
        columns: those that are learned from.
        labels: reads the labels of both sides; asked for only where they decide.

    Raises:
        DataError: when the labels do not fit the task, or the plug-in that declares it cannot be used.
    """
    kinds = registry()
    if name not in ("auto", *kinds):
        raise DataError(
            f"data.task={name}: its plug-in cannot be used; the log says why, `dynlora doctor` lists plug-ins"
        )
    kind = kinds[name] if name != "auto" else next((cls for cls in kinds.values() if cls.claims_columns(columns)), None)
    if kind is not None and issubclass(kind, UnlabelledTask):
        return kind.of_columns(section, columns)
    column = labels()
    labelled = [cls for cls in kinds.values() if issubclass(cls, LabelledTask)]
    return next(cls for cls in labelled if cls is kind or (kind is None and cls.claims(column))).of(column)


def of_model(model: Any) -> Task:
    """Return the task that a model of one's own was made for, as far as it says; classification otherwise."""
    return next(cls(()) for cls in registry().values() if cls.made(model))


__all__ = [
    "LabelColumn",
    "LabelledTask",
    "Task",
    "UnlabelledTask",
    "WritingTask",
    "build",
    "choose",
    "of_model",
    "registry",
]
