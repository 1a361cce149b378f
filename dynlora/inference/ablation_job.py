"""An ablation that the inference child measures between the questions, a set of modules at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from dynlora.store.knockouts import Knockouts


@dataclass
class Job:
    """An ablation under way.

    Attributes:
        steps: measures the next set of modules each time it is advanced.
        file: where what is known is kept.
        sets: modules that are switched off together, by position; None is every module alone.
        rows: held-out rows that are looked at.
        of: sets in all.
        done: sets measured; -1 before the rows were measured with nothing off.
        error: why it ended early, or None.
        ended: whether there is nothing left to do.
    """

    steps: Iterator[Knockouts]
    file: Path
    sets: list[list[int]] | None
    rows: int
    of: int
    done: int = -1
    error: str | None = None
    ended: bool = False
