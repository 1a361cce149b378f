"""What the engine tells the outside: the recorder it is handed, and one that keeps nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np


class Recorder(Protocol):
    """Takes what a run emits; the run store's writer is one. Recording never changes a result."""

    def define_signal(self, name: str, axis: str, unit: str, width: int) -> None:
        """Announce a signal: axis is module, component, group, example or member; width in float32 values."""

    def define_groups(self, names: Sequence[str]) -> None:
        """Announce the input groups, in order."""

    def define_examples(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Announce the probe set: text, text_pair, label, group, x, y of each example."""

    def vector(self, signal: str, step: int, values: np.ndarray) -> None:
        """Keep one vector of a signal."""

    def scalar(self, name: str, split: str, step: int, value: float) -> None:
        """Keep one number."""

    def event(self, step: int, kind: str, modules: Sequence[int], payload: Mapping[str, Any]) -> None:
        """Keep a discrete change; `modules` are their positions."""

    def log(self, level: str, message: str) -> None:
        """Keep one line for people."""

    def progress(self, step: int) -> None:
        """Say that `step` is done; called every step."""

    def activity(self, phase: str, remaining_s: float | None) -> None:
        """Say what the run does now, such as `evaluating`, empty for steps, and how many seconds it still needs.

        A sign of life: called in all that takes longer than a step. It is current state and no part of the record.
        """

    def commit(self, durable: bool = False) -> None:
        """Make what was recorded visible; durable: also safe from a crash."""


class NullRecorder(Recorder):
    """Keeps nothing."""
