"""How much the benchmark does, and what it compares."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

MODULE = "benchmarks.recycle"
SHOTS = (1, 5)
SOURCES = ("inverted", "words", "noise", "real")
"""What a meta-LoRA learns from: inverted inputs, their nearest words, what was not inverted, the teachers' data."""

FEW = 3
"""Teachers of the comparison of token dropping."""

VARIANTS: dict[str, dict[str, Any]] = {
    "where tuning began": {},
    "starts from text": {"start": "text"},
    "starts from noise": {"start": "noise"},
    "no pull to words": {"table": 0.0},
    "no moments": {"moments": 0.0},
    "stronger moments": {"moments": 1.0},
}
"""Settings that are compared with `--tune`: on `FEW` teachers and on intents of neither teachers nor test."""

BEGAN = {"start": "words", "moments": 0.1, "table": 0.05}
"""What the variants differ from."""

DROPPING = {"few, half of the tokens": 0.5, "few, all tokens": 0.0}
"""What a meta-LoRA of `FEW` teachers learns from, and the fraction of tokens that its inversion drops."""


@dataclass(frozen=True)
class Setting:
    """How much is done.

    Attributes:
        model: backbone.
        teachers: runs that teach.
        classes: intents of each.
        test_classes: intents that nobody trains.
        steps: optimizer steps of a teacher.
        iterations: of the inversion.
        inputs: synthetic inputs of a class.
        episodes: of meta-training.
        test_episodes: for each number of shots.
        pooling: of the features.
        lr: of the meta-LoRA.
        moments: weight of the distance to the hidden moments of public text.
        seeds: of meta-training.
    """

    model: str = "minilm"
    teachers: int = 12
    classes: int = 6
    test_classes: int = 60
    steps: int = 60
    iterations: int = 24
    inputs: int = 10
    episodes: int = 80
    test_episodes: int = 600
    pooling: str = "mean"
    lr: float = 1e-3
    moments: float = 1.0
    seeds: int = 2
