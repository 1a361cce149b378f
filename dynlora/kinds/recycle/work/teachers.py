"""Teachers: finished classification runs of one backbone, loaded one after the other and used as functions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dynlora import assets
from dynlora.config import RunConfig
from dynlora.config_files import read_run_config
from dynlora.engine.evaluation.inference import AdaptedModel
from dynlora.errors import ConfigError, DynloraError
from dynlora.inference.load import load_run
from dynlora.kinds.named_runs import NamedRun
from dynlora.kinds.recycle.settings import CLASSES_AT_ONCE, base_of, classes_of


@dataclass(frozen=True)
class Teacher:
    """A run that teaches.

    Attributes:
        run: its id.
        name: for people.
        folder: of the run.
        classes: names of its classes.
        config: its settings.
    """

    run: str
    name: str
    folder: Path
    classes: tuple[str, ...]
    config: RunConfig

    def load(self) -> AdaptedModel:
        """Return the trained model, all of it frozen.

        Raises:
            DynloraError: one sentence that names the teacher, when it cannot be loaded.
        """
        try:
            model = load_run(self.folder)
        except DynloraError as error:
            raise type(error)(f"teacher {self.run}: {error}") from None
        model.base.model.requires_grad_(False)
        return model

    def described(self) -> dict[str, object]:
        """Return what a recycle keeps of its teacher, as plain values."""
        return {
            "run": self.run,
            "name": self.name,
            "classes": list(self.classes),
            "rank": self.config.adapter.rank,
            "strategy": self.config.strategy.name,
        }


@dataclass(frozen=True)
class Part:
    """Classes of one teacher that are inverted together.

    Attributes:
        teacher: its position among the teachers.
        classes: indices of the classes among the teacher's.
        first: position of the first of them among the classes of all teachers.
    """

    teacher: int
    classes: tuple[int, ...]
    first: int


def teachers_of(runs: Sequence[NamedRun]) -> list[Teacher]:
    """Return checked runs as teachers.

    Raises:
        ConfigError: when the model of one is quantised: its embeddings are others.
    """
    teachers = []
    for run in runs:
        config = read_run_config(run.folder)
        if config.model.quantization is not None:
            raise ConfigError(
                f"teacher {run.id}: its base model is quantised, so its embeddings are not those of the others; give "
                "runs without model.quantization"
            )
        teachers.append(Teacher(run.id, run.name, run.folder, tuple(classes_of(run)), config))
    return teachers


def parts_of(teachers: Sequence[Teacher]) -> list[Part]:
    """Return what is inverted together, in order."""
    parts, first = [], 0
    for index, teacher in enumerate(teachers):
        numbers = range(len(teacher.classes))
        for start in range(0, len(numbers), CLASSES_AT_ONCE):
            chosen = tuple(numbers[start : start + CLASSES_AT_ONCE])
            parts.append(Part(index, chosen, first + start))
        first += len(teacher.classes)
    return parts


def pooled_classes(teachers: Sequence[Teacher]) -> list[tuple[str, str]]:
    """Return (teacher, class) of all classes, in order."""
    return [(teacher.name, name) for teacher in teachers for name in teacher.classes]


def base_folder(runs: Sequence[NamedRun]) -> Path:
    """Return the local folder of the base model that all teachers adapt."""
    return assets.resolve_model(base_of(runs[0]))
