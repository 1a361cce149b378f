"""Runs that the settings of another run name: by id in the runs folder, or by the path of their folder."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from dynlora.blocks import in_words, parse_blocks
from dynlora.config import TASKS, RunConfig, parse_config
from dynlora.config_files import read_run_config
from dynlora.errors import ConfigError, RunNotFoundError, RunRoleError
from dynlora.kinds.settings import KindSettings, marker
from dynlora.store.jsontext import MAX_WHOLE
from dynlora.store.meta import TRAIN, config, items, kind_of, section, table, text
from dynlora.store.reader import RunReader
from dynlora.store.schema import DB_NAME, command_text, run_folder

TEACH = "Runs teach one LoRA"
"""What teachers are picked for."""

NO_TEACHER = (
    "No finished run can teach yet. A teacher is a run that classifies, or writes texts, and kept its adapter: launch "
    "one first."
)

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
    def classes(self) -> list[str]:
        """Names of the classes that it knows; none for one that writes texts."""
        return [str(label) for label in items(self.meta.get("labels"), MAX_WHOLE)]

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


def base_of(run: NamedRun) -> str:
    """Return the name of the model that a run adapts."""
    return text(section(run.config, "model").get("name")) or text(run.meta.get("model")) or ""


def blocks_of(run: NamedRun) -> str:
    """Return what a run adapts: the name of its model, and how many of its blocks where not all."""
    try:
        blocks = parse_blocks(section(run.config, "model").get("layers"))
    except ConfigError:  # of a config that somebody wrote
        blocks = None
    return base_of(run) if blocks is None else f"{in_words(blocks)} of {base_of(run)}"


def check_one_base(runs: Sequence[NamedRun]) -> None:
    """Refuse runs that adapt different models, or different blocks of one.

    Raises:
        ConfigError: one sentence that names two of them.
    """
    models: dict[str, NamedRun] = {}
    for run in runs:
        models.setdefault(blocks_of(run), run)
    if len(models) > 1:
        (ours, first), (theirs, other) = list(models.items())[:2]
        raise ConfigError(
            f"{other.role} {other.id}: adapts {theirs}, and {first.id} adapts {ours}; give runs of one base model"
        )


def check_ended(run: NamedRun) -> None:
    """Refuse a run that still learns, or failed.

    Raises:
        ConfigError: one sentence that says what to do instead.
    """
    if run.status not in ("finished", "stopped"):
        raise ConfigError(f"{run.role} {run.id}: is {run.status}; let it finish, or give another run")


class SourcedSettings(KindSettings):
    """Settings of a run that is made of finished runs of one base model."""

    @abstractmethod
    def runs(self, runs_dir: Path) -> list[NamedRun]:
        """Return the runs that it is made of, each once.

        Raises:
            DynloraError: when one is not there or cannot be used.
        """

    def model_and_data(self, runs_dir: Path) -> tuple[str, str]:
        """Return the base model of the runs, and what they learned from, by name."""
        runs = self.runs(runs_dir)
        sources = dict.fromkeys(os.path.basename(text(run.meta.get("data")) or "") for run in runs)
        return base_of(runs[0]), ", ".join(filter(None, sources))[:200]

    def as_config(self, runs_dir: Path) -> dict[str, Any]:
        """Return the sections of a config that loads what is made: a LoRA on the base model of the runs."""
        configs = [read_run_config(run.folder) for run in self.runs(runs_dir)]
        return {
            "model": {"name": configs[0].model.name, "layers": configs[0].model.layers},
            "data": {"max_length": max(config.data.max_length for config in configs)},
            "strategy": {"name": "lora"},
            "log": {"generate_max": max(config.log.generate_max for config in configs)},
        }

    @classmethod
    def stored_config(cls, folder: Path) -> RunConfig:
        """Return the config that loads what a run made: its store keeps it, see `as_config`.

        Raises:
            RunNotFoundError: when there is no such run.
            CorruptRunError: when it cannot be read.
            ConfigError: when the config breaks a rule.
        """
        with RunReader(folder) as reader:
            stored = table(reader.meta(("config",)).get("config"))
        return parse_config({key: value for key, value in stored.items() if key != cls.kind})
