"""Settings of a recycle: finished runs teach a meta-LoRA that needs a few examples of a new task and no training."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from dynlora.config import GENERATIVE, Name
from dynlora.errors import ConfigError
from dynlora.kinds.named_runs import NamedRun, RunField, SourcedSettings, check_ended, check_one_base, named_runs
from dynlora.kinds.settings import FormField

CLASSES_AT_ONCE = 6
"""Classes of a teacher that are inverted together: the published code takes 4, with 10 inputs each."""


def check_teacher(run: NamedRun) -> None:
    """Refuse a run that cannot teach.

    Raises:
        ConfigError: one sentence that says why.
    """
    check_ended(run)
    if run.task in GENERATIVE:
        raise ConfigError(
            f"teacher {run.id}: writes texts, and this recycles classifiers; give runs that classify, or runs that all "
            "write, whose texts are distilled"
        )
    if not run.classifies:
        raise ConfigError(f"teacher {run.id}: learned {run.task or 'an unknown task'}; give a run that classifies")
    if len(run.classes) < 2:
        raise ConfigError(f"teacher {run.id}: knows {len(run.classes)} class; give a run with two classes or more")


class RecycleSettings(SourcedSettings):
    """Which runs teach, how many inputs are made of them, and which episodes the meta-LoRA learns from."""

    kind: ClassVar[str] = "recycle"
    method: ClassVar[str] = "lora_recycle"
    fidelity: ClassVar[str] = "reconstruction"
    example: ClassVar[Mapping[str, Any]] = {
        "ways": 2,
        "shots": (1, 2),
        "queries": 1,
        "inputs": 4,
        "iterations": 4,
        "episodes": 3,
        "test_episodes": 4,
    }

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "Quick": {"iterations": 20, "episodes": 80},
        "Usual": {"iterations": 40, "episodes": 150},
        "Thorough": {"iterations": 100, "episodes": 500},
    }

    teachers: Annotated[
        tuple[Name, ...], RunField("teacher", check_teacher, lambda run: f"{len(run.classes)} classes")
    ] = Field(..., min_length=1, max_length=500, description="Finished runs that teach: their ids, or their folders.")
    ways: Annotated[int, FormField("Ways (classes per episode)")] = Field(
        5, ge=2, le=100, description="Classes of an episode."
    )
    shots: tuple[int, ...] = Field((1, 5), min_length=1, max_length=10, description="Examples per class.")
    queries: int = Field(10, ge=1, le=100, description="Questions per class of an episode.")
    episodes: int = Field(150, ge=1, le=1_000_000, description="Episodes that the meta-LoRA learns from.")
    iterations: int = Field(40, ge=1, le=100_000, description="Steps of the inversion of up to 6 classes at a time.")
    inputs: int = Field(12, ge=2, le=1000, description="Synthetic inputs made per class.")
    tokens: int = Field(12, ge=4, le=512, description="Tokens of a synthetic input.")
    drop: float = Field(
        0.5,
        ge=0,
        lt=1,
        description="Fraction of the tokens, those of least use, dropped after a quarter of the inversion.",
    )
    start: Literal["text", "words", "noise"] = Field(
        "words", description="What the inversion starts from: random words, pieces of public text, or noise."
    )
    moments: float = Field(1.0, ge=0, le=1e6, description="Weight of the distance to hidden moments of public text.")
    table: float = Field(0.05, ge=0, le=1e6, description="Weight of the distance to the nearest word embeddings.")
    pooling: Literal["auto", "mean", "last"] = Field(
        "auto", description="Features: the mean over the tokens or the last token; auto: mean."
    )
    rank: int = Field(4, ge=1, le=1024, description="Rank of the meta-LoRA.")
    lora_alpha: float = Field(8.0, gt=0, le=1e6, description="Scale of the meta-LoRA times its rank.")
    lr: float = Field(1e-3, gt=0, le=1, description="Learning rate of the meta-LoRA.")
    inversion_lr: float = Field(0.1, gt=0, le=10, description="Learning rate of the synthetic inputs.")
    test: Name | None = Field(
        None,
        description="File of a task that nobody trained, with columns text and label; empty: held-out examples of the "
        "teachers' own data.",
    )
    test_episodes: int = Field(200, ge=1, le=100_000, description="Episodes of the test.")
    noise: Annotated[bool, FormField("Control: learn from noise too")] = Field(
        False, description="Also learn from random inputs with the same labels, as a control."
    )

    @field_validator("shots")
    @classmethod
    def _some_shots(cls, shots: tuple[int, ...]) -> tuple[int, ...]:
        if any(not 1 <= number <= 100 for number in shots):
            raise ValueError(f"shots {', '.join(map(str, shots))}: each must be 1 to 100 examples per class")
        return tuple(sorted(set(shots)))

    @model_validator(mode="after")
    def _leaves_queries(self) -> RecycleSettings:
        """Refuse shots that leave no query among the inputs of a class."""
        if self.shots[-1] >= self.inputs:
            raise ValueError(
                f"shots {self.shots[-1]}: leaves no question among the {self.inputs} synthetic inputs of a class; "
                "lower shots or raise inputs"
            )
        return self

    @property
    def kept(self) -> int:
        """Tokens of a synthetic input that are left after the others are dropped."""
        return max(1, self.tokens - round(self.drop * self.tokens))

    @property
    def drop_at(self) -> int | None:
        """The iteration after which tokens are dropped; None where none are."""
        return max(1, round(self.iterations / 4)) if self.kept < self.tokens else None

    def runs(self, runs_dir: Path) -> list[NamedRun]:
        """Return the teachers, each once.

        Raises:
            DynloraError: when one is not there or cannot teach.
        """
        return named_runs("teacher", self.teachers, runs_dir, check_teacher)

    def check(self, runs_dir: Path) -> None:
        """Refuse teachers that are not there, have one class or other models, and too few classes together."""
        runs = self.runs(runs_dir)
        check_one_base(runs)
        classes = sum(len(run.classes) for run in runs)
        if classes < self.ways:
            raise ConfigError(
                f"ways {self.ways}: the teachers have {classes} classes together; give fewer ways or more teachers"
            )

    def steps(self, runs_dir: Path) -> int:
        """Return the iterations of all inversions, and the episodes after them, those of the control too."""
        parts = sum(-(-max(1, len(run.classes)) // CLASSES_AT_ONCE) for run in self.runs(runs_dir))
        return parts * self.iterations + self.episodes * (2 if self.noise else 1)

    def title(self) -> str:
        """Return the display name, or a description when none was given."""
        return self.name or f"Meta-LoRA of {len(set(self.teachers))} runs, seed {self.seed}"
