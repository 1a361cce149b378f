"""Settings of a data-free distillation: runs that write texts teach one LoRA by texts of their own.

It is not LoRA Recycle: no input is inverted and no episode is learned from.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import Field

from dynlora.config import GENERATIVE, Name
from dynlora.errors import ConfigError
from dynlora.kinds.named_runs import (
    NamedRun,
    RunField,
    SourcedSettings,
    check_ended,
    check_one_base,
    named_runs,
)
from dynlora.kinds.settings import FormField, stages_of

TEXTS_AT_ONCE = 16
"""Texts that a teacher writes in one step."""

NOT_RECYCLE = "This is data-free distillation, not LoRA Recycle: each teacher's own texts are generated and distilled."
"""What is said wherever a distillation is shown."""


def writes(run: NamedRun) -> bool:
    """Say whether a run learned to write texts."""
    return run.task in GENERATIVE


def check_writer(run: NamedRun) -> None:
    """Refuse a run that cannot teach to write.

    Raises:
        ConfigError: one sentence that says why.
    """
    check_ended(run)
    if not writes(run):
        raise ConfigError(f"teacher {run.id}: learned {run.task or 'an unknown task'}; give a run that writes texts")


class DistilSettings(SourcedSettings):
    """Which runs teach, how many texts each of them writes, and how the student learns from them."""

    kind: ClassVar[str] = "distil"
    method: ClassVar[str] = "data_free_distillation"
    fidelity: ClassVar[str] = "description"
    example: ClassVar[Mapping[str, Any]] = {
        "samples": 4,
        "held_out": 2,
        "tokens": 6,
        "train_steps": 4,
        "batch_size": 4,
        "rank": 2,
        "rows": 4,
    }

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "Quick": {"samples": 32, "train_steps": 100},
        "Usual": {"samples": 64, "train_steps": 200},
        "Thorough": {"samples": 256, "train_steps": 1000},
    }

    teachers: Annotated[tuple[Name, ...], RunField("teacher", check_writer, lambda run: "writes texts")] = Field(
        ..., min_length=1, max_length=100, description="Finished runs that write texts: their ids, or their folders."
    )
    samples: int = Field(64, ge=1, le=100_000, description="Texts that each teacher writes for the student.")
    tokens: Annotated[int, FormField("Tokens per text, at most")] = Field(
        64, ge=2, le=4096, description="Tokens of a text at most."
    )
    held_out: int = Field(32, ge=2, le=10_000, description="Texts that each teacher writes for the test alone.")
    train_steps: int = Field(200, ge=1, le=1_000_000, description="Optimizer steps of the student.")
    batch_size: int = Field(8, ge=1, le=4096, description="Texts per optimizer step.")
    rank: Annotated[int, FormField("Rank of the student")] = Field(8, ge=1, le=1024, description="Rank of the student.")
    lora_alpha: float = Field(16.0, gt=0, le=1e6, description="Scale of the student times its rank.")
    lr: float = Field(1e-3, gt=0, le=1, description="Learning rate of the student.")
    rows: int = Field(
        200, ge=2, le=100_000, description="Held-out examples of each teacher's data in the test, at most."
    )

    def runs(self, runs_dir: Path) -> list[NamedRun]:
        """Return the teachers, each once.

        Raises:
            DynloraError: when one is not there or cannot teach.
        """
        return named_runs("teacher", self.teachers, runs_dir, check_writer)

    def check(self, runs_dir: Path) -> None:
        """Refuse teachers that are not there, do not write, or adapt different models."""
        check_one_base(self.runs(runs_dir))

    def batches(self, texts: int) -> int:
        """Return in how many steps a teacher writes some texts."""
        return math.ceil(texts / TEXTS_AT_ONCE)

    def stages(self, teachers: int) -> list[dict[str, Any]]:
        """Return the stages with their first and last step; the step before `first` is done when a stage begins."""
        lengths = {
            "samples": teachers * self.batches(self.samples),
            "held_out": teachers * self.batches(self.held_out),
            "student": self.train_steps,
        }
        return stages_of(lengths)

    def steps(self, runs_dir: Path) -> int:
        """Return the steps in which all teachers write, and those of the student."""
        return int(self.stages(len(self.runs(runs_dir)))[-1]["last"])

    def title(self) -> str:
        """Return the display name, or a description when none was given."""
        return self.name or f"Data-free distillation of {len(set(self.teachers))} runs, seed {self.seed}"

    def meta(self, runs_dir: Path) -> dict[str, Any]:
        """Return what the store keeps of a run before it starts: also how its student is loaded, as a config."""
        document = super().meta(runs_dir)
        document["config"] |= {
            **self.as_config(runs_dir),
            "adapter": {"rank": self.rank, "alpha": self.lora_alpha, "dropout": 0.0},
            "train": {"steps": self.train_steps, "lr": self.lr},
        }
        return document
