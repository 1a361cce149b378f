"""How much the benchmark does, and what it compares."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

MODULE = "benchmarks.distil"

TAUGHT: dict[str, dict[str, Any]] = {
    "sums": {"name": "arithmetic", "loss_on": "all"},
    "films": {"name": "sentiment4-text", "train_groups": ["movies"]},
}
"""What each teacher learns: section `data` of its configuration."""

AGAINST = ("base", "averaged", "base texts", "real texts", "real data")
"""What the student is held against, in pairs."""


@dataclass(frozen=True)
class Setting:
    """How much is done.

    Attributes:
        model: base model.
        layers: its blocks; 0 for all of them.
        teacher_steps: optimizer steps of a teacher.
        samples: texts of each teacher for the student.
        held_out: texts of each teacher for the test.
        tokens: of a text and of an example at most.
        steps: optimizer steps of each student.
        batch: texts or examples of a step.
        rank: of teachers and students.
        lr: of teachers and students.
        rows: held-out examples of each task.
        seed: of everything.
    """

    model: str = "smollm2-135m"
    layers: int = 0
    teacher_steps: int = 40
    samples: int = 64
    held_out: int = 32
    tokens: int = 40
    steps: int = 40
    batch: int = 8
    rank: int = 8
    lr: float = 2e-3
    rows: int = 100
    seed: int = 0


QUICK = Setting(layers=2, teacher_steps=16, samples=16, held_out=8, tokens=16, steps=12, rows=16)
