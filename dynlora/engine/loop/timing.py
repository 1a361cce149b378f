"""Where the time of a training step goes."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

RECENT = 50
"""Step times kept for the median."""


@dataclass
class Timing:
    """Where the time goes, in milliseconds a step; medians over recent steps of this process.

    `train_s` and `evaluated_s` are the seconds that all steps and all evaluations took.
    """

    step_ms: deque[float] = field(default_factory=lambda: deque(maxlen=RECENT))
    strategy_ms: deque[float] = field(default_factory=lambda: deque(maxlen=RECENT))
    train_s: float = 0.0
    evaluated_s: float = 0.0
    open_ms: float = 0.0

    @contextmanager
    def strategy(self) -> Iterator[None]:
        """Attribute a section to the strategy."""
        start = time.perf_counter()
        yield
        self.open_ms += 1000 * (time.perf_counter() - start)

    def end_step(self, seconds: float) -> None:
        """Close a step."""
        self.step_ms.append(1000 * seconds)
        self.strategy_ms.append(self.open_ms)
        self.open_ms = 0.0
        self.train_s += seconds

    def medians(self) -> dict[str, float]:
        """Return train_s, evaluated_s, step_ms_median and strategy_ms_median."""
        return {
            "train_s": self.train_s,
            "evaluated_s": self.evaluated_s,
            "step_ms_median": _median(self.step_ms),
            "strategy_ms_median": _median(self.strategy_ms),
        }


def _median(values: deque[float]) -> float:
    """Return the median, 0 of nothing."""
    ordered = sorted(values)
    return ordered[len(ordered) // 2] if ordered else 0.0
