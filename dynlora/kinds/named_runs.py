"""Runs that the settings of another run name: by id in the runs folder, or by the path of their folder."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from dynlora.config import TASKS
from dynlora.errors import ConfigError, RunNotFoundError, RunRoleError
from dynlora.kinds.settings import marker
from dynlora.store.meta import TRAIN, config, kind_of, text
from dynlora.store.reader import RunReader
from dynlora.store.schema import DB_NAME, command_text, run_folder

ADAPTERS = ("adapter", "checkpoint")
"""Folders of a run of which one holds what it trained."""


@dataclass(frozen=True)
class NamedRun:
    """A trained run that another one uses.

    Attributes:
        role: what it is used as, for messages: draft, target, reward or teacher.
        id: of the run.
        folder: its folder.
        meta: what its store keeps of it.
        status: derived, see `store.rows.Status`.
    """

    role: str
    id: str
    folder: Path
    meta: dict[str, Any]
    status: str

    @property
    def name(self) -> str:
        """Its display name."""
        return text(self.meta.get("name")) or self.id

    @property
    def task(self) -> str | None:
        """Name of its task; None where none is known."""
        return text(self.meta.get("task"))

    @property
    def classifies(self) -> bool:
        """Whether its labels are classes."""
        return TASKS.get(self.task or "") is True

    @property
    def config(self) -> dict[str, Any]:
        """Its settings, every section an object."""
        return config(self.meta.get("config"))


@dataclass(frozen=True)
class RunField:
    """That a setting names a run, or several.

    Attributes:
        role: of the run, for messages.
        check: refuses a run that the setting cannot name, with a DynloraError.
        about: what a person should know of a run beside its name.
        others: values that name no run, with what a person reads.
    """

    role: str
    check: Callable[[NamedRun], object]
    about: Callable[[NamedRun], str] = lambda run: ""
    others: Mapping[str, str] = field(default_factory=dict[str, str])


def run_fields(settings: type[BaseModel]) -> dict[str, RunField]:
    """Return what the settings say that name runs, by their names."""
    fields = {name: marker(info, RunField) for name, info in settings.model_fields.items()}
    return {name: field for name, field in fields.items() if field is not None}


def find_run_folder(role: str, source: str, runs_dir: Path) -> Path:
    """Return the folder of a run that is named by its id or by the path of its folder.

    Raises:
        ConfigError: when neither names a run.
    """
    if source == Path(source).name:
        try:
            return run_folder(runs_dir, source)
        except (ConfigError, RunNotFoundError):
            pass
    path = Path(os.path.abspath(Path(os.path.expanduser(source))))
    if (path / DB_NAME).is_file():
        return path
    listing = command_text("runs", runs_dir=runs_dir)
    raise RunRoleError(f"{role} {source[:80]}: there is no such run in {runs_dir}; `{listing}` lists their ids")


def named_run(role: str, source: str, runs_dir: Path) -> NamedRun:
    """Return a trained run that can be used.

    Args:
        role: what it is to be used as, for messages.
        source: its id, or the path of its folder.
        runs_dir: where ids are looked for.

    Raises:
        ConfigError: when there is no such run, it is no training, or it kept no adapter.
        CorruptRunError: when it cannot be read.
    """
    folder = find_run_folder(role, source, runs_dir)
    with RunReader(folder) as reader:
        run = NamedRun(role, folder.name, folder, reader.meta(), reader.status().status)
    kind = kind_of(run.meta)
    if kind != TRAIN:
        raise RunRoleError(f"{role} {run.id}: is a {kind} run; give a run that trained an adapter")
    if not any((folder / name).is_dir() for name in ADAPTERS):
        raise RunRoleError(
            f"{role} {run.id}: is {run.status} and kept no adapter; give a run that has one, or train it first"
        )
    return run


def named_runs(
    role: str, sources: Iterable[str], runs_dir: Path, check: Callable[[NamedRun], object]
) -> list[NamedRun]:
    """Return trained runs that can be used, each once, in their order; `check` refuses one that cannot.

    Raises:
        DynloraError: when one is not there or is refused.
    """
    runs = [named_run(role, source, runs_dir) for source in dict.fromkeys(sources)]
    for run in runs:
        check(run)
    return runs
