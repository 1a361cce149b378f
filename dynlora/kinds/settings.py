"""Settings of a run that is no training: what every such kind has in common, YAML in and out."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar

from pydantic import Field
from pydantic.fields import FieldInfo

from dynlora.config import Name, Section
from dynlora.config_files import read_yaml, yaml_text
from dynlora.errors import ConfigError, DynloraError
from dynlora.store.meta import FROM_EVENTS, OTHER, TRAIN, kind_of
from dynlora.store.reader import RunReader
from dynlora.store.schema import command_text

T = TypeVar("T")


@dataclass(frozen=True)
class FormField:
    """What a form needs to know of a setting beside its type, its limits, its default and its description.

    Attributes:
        label: of a setting that is drawn at once; the others are under "More settings" by their names.
        choices: values by what a person reads, the first where the form begins; empty: any value.
        option: of the command, where it has another name.
        is_offered: whether the form draws it.
    """

    label: str = ""
    choices: Mapping[str, Any] = field(default_factory=dict[str, Any])
    option: str = ""
    is_offered: bool = True


def marker(info: FieldInfo, of: type[T]) -> T | None:
    """Return what a setting is annotated with of a class, such as its `FormField`; None for nothing."""
    return next((one for one in info.metadata if isinstance(one, of)), None)


def stages_of(lengths: Mapping[str, int]) -> list[dict[str, Any]]:
    """Return stages one after the other, with `name`, `first` and `last` step.

    Args:
        lengths: steps of each stage, by its name.
    """
    ends = list(accumulate(lengths.values()))
    return [
        {"name": name, "first": last - length, "last": last}
        for (name, length), last in zip(lengths.items(), ends, strict=True)
    ]


class KindSettings(Section):
    """Settings of one kind of run; a subclass adds its own.

    Attributes:
        kind: the kind, the name of its folder in `dynlora/kinds/`.
        method: what the list of runs shows as the strategy.
        fidelity: how close it is to its paper: code, description or reconstruction.
        continues_from_events: it continues from what its own events say, and keeps no checkpoint.
        presets: values of several settings that a form offers together, by name.
        example: values of a run that takes seconds, runs left out: the contract tests make it of tiny ones.
    """

    kind: ClassVar[str]
    method: ClassVar[str]
    fidelity: ClassVar[str]
    continues_from_events: ClassVar[bool] = False
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    example: ClassVar[Mapping[str, Any]] = {}

    name: Name | None = Field(None, description="Display name; empty: a description.")
    seed: int = Field(0, ge=0, lt=2**32, description="Seed of every random draw.")

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> Self:
        """Return checked settings, as every `Section` does; their kind may be among the values."""
        return super().parse({key: value for key, value in values.items() if key != "kind"})

    @classmethod
    def of_run(cls, folder: Path) -> Self:
        """Return the settings that a run was made with.

        Raises:
            ConfigError: when config.yaml is a link, cannot be read, is of another kind, or a value breaks a rule.
        """
        path = folder / "config.yaml"
        if path.is_symlink():
            raise ConfigError(f"run {folder.name}: config.yaml is a link; replace it by the file itself")
        values = read_yaml(path)
        if values.get("kind") != cls.kind:
            _refuse_another(folder, cls.kind)
            raise ConfigError(f"run {folder.name}: config.yaml is not that of a {cls.kind} run; restore the file")
        return cls.parse(values)

    def plain(self) -> dict[str, Any]:
        """Return the settings as plain values, the kind first."""
        return {"kind": self.kind, **self.model_dump(mode="json")}

    def to_yaml(self) -> str:
        """Return the settings as YAML that `of_run` reads back to an equal object."""
        return yaml_text(self.plain())

    def takes(self) -> str:
        """Return what the run takes, in a sentence."""
        return "The time is estimated when it starts, and shown on its page."

    def title(self) -> str:
        """Return the display name, or a description when none was given."""
        return self.name or f"{self.method}, seed {self.seed}"

    def model_and_data(self, runs_dir: Path) -> tuple[str, str]:
        """Return the names of model and data that the list of runs shows.

        Args:
            runs_dir: where the runs that the settings name are looked for.
        """
        raise NotImplementedError

    def steps(self, runs_dir: Path) -> int:
        """Return how many steps the run has, as far as the settings say; the run corrects it once it knows."""
        raise NotImplementedError

    def check(self, runs_dir: Path) -> None:
        """Refuse what can be refused without torch, such as a run that is not there.

        Raises:
            DynloraError: one sentence that says what to do instead.
        """
        raise NotImplementedError

    def meta(self, runs_dir: Path) -> dict[str, Any]:
        """Return what the store keeps of a run before it starts."""
        model, data = self.model_and_data(runs_dir)
        return {
            "kind": self.kind,
            "name": self.title(),
            "strategy": self.method,
            "fidelity": self.fidelity,
            "model": model,
            "data": data,
            "seed": self.seed,
            **({FROM_EVENTS: True} if self.continues_from_events else {}),
            "config": {"seed": self.seed, "model": {"name": model}, self.kind: self.model_dump(mode="json")},
        }


def _refuse_another(folder: Path, kind: str) -> None:
    """Refuse a run whose store says that it is of another kind, so that nothing of it is damaged.

    Raises:
        ConfigError: for such a run.
    """
    other = kind
    with suppress(DynloraError), RunReader(folder) as reader:
        other = kind_of(reader.meta(("kind",)))
    if other != kind:
        description = {TRAIN: "a training run", OTHER: "of a kind that this version does not know"}.get(
            other, f"a {other} run"
        )
        listing = command_text("runs", "--where", f"kind={kind}", runs_dir=folder.parent)
        raise ConfigError(f"run {folder.name}: is {description}, and a {kind} run is needed; `{listing}` lists them")
