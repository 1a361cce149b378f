"""How long a run still takes, by what its steps and evaluations took, and which evaluations write texts."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

WRITING_SHARE = 0.2
"""Fraction of a run that the texts of the evaluations before the last may take."""

WRITING_FREE_S = 10.0
"""Seconds that these texts may take in any case: a run of a few seconds shows its texts too."""

STEP_PER_FORWARD = 3.0
"""Time of a training step over that of a forward pass of its tokens, before the first step: backward costs two."""

ALWAYS, FIRST, LAST = "always", "first", "last"
"""Which evaluations write texts: all; the one before training and the last; the last alone."""


def writing_evaluations(interim_s: float, evaluations: int, run_s: float) -> str:
    """Return which evaluations write texts, so that those before the last take at most a fifth of the run.

    Args:
        interim_s: seconds that the texts of one evaluation before the last take at most.
        evaluations: number of evaluations before the last.
        run_s: seconds that the run takes without these texts.
    """
    allowed = max(WRITING_FREE_S, WRITING_SHARE * run_s)
    if evaluations * interim_s <= allowed:
        return ALWAYS
    return FIRST if interim_s <= allowed else LAST


@dataclass
class Outlook:
    """What a run still has to do, and how long that takes.

    Attributes:
        total: optimizer steps of the run.
        every: steps between evaluations.
        step_tokens: tokens of an optimizer step, on average.
        tokens: held-out tokens that an evaluation before the last reads, and that the last one reads.
        step_s: seconds of the recent steps of this process, checkpoints and records included.
        token_s: seconds an evaluation takes per token; None before the first one.
        writing_s: seconds of the texts of an evaluation before the last, and of the last; None before they were timed.
        writes: which evaluations write texts, `ALWAYS`, `FIRST` or `LAST`.
    """

    total: int
    every: int
    step_tokens: float
    tokens: tuple[float, float]
    step_s: deque[float] = field(default_factory=lambda: deque(maxlen=20))
    token_s: float | None = None
    writing_s: tuple[float, float] | None = None
    writes: str = ALWAYS
    _first_step_left: bool = False
    _ends_at: float | None = None

    @property
    def interim_evaluations(self) -> int:
        """Number of evaluations before the last, the one before training included."""
        return math.ceil(self.total / self.every)

    @property
    def interim_writings(self) -> int:
        """Number of evaluations before the last that write texts."""
        return {ALWAYS: self.interim_evaluations, FIRST: 1, LAST: 0}[self.writes]

    def state_dict(self) -> dict[str, Any]:
        """Return the state that a checkpoint keeps, for `load_state_dict`."""
        return {"token_s": self.token_s, "writing_s": self.writing_s, "writes": self.writes}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue with what a checkpoint holds; earlier versions hold nothing and wrote at every evaluation."""
        writing_s = state.get("writing_s")
        self.token_s, self.writes = state.get("token_s"), state.get("writes", ALWAYS)
        self.writing_s = None if writing_s is None else (writing_s[0], writing_s[1])

    def writes_at(self, step: int) -> bool:
        """Say whether the evaluation after `step` writes texts."""
        return step >= self.total or self.writes == ALWAYS or (self.writes == FIRST and step == 0)

    def decide(self, interim_s: float) -> None:
        """Set which evaluations write texts, by the time of a forward pass, and of the texts of one before the last."""
        steps = self.total * self.step_tokens * STEP_PER_FORWARD
        run_s = (self.token_s or 0.0) * (steps + self.interim_evaluations * self.tokens[0] + self.tokens[1])
        self.writes = writing_evaluations(interim_s, self.interim_evaluations, run_s)

    def took_step(self, seconds: float) -> None:
        """Note how long a step took; the first of a process, which is slower, is forgotten after two more."""
        self.step_s.append(seconds)
        if len(self.step_s) == 3 and not self._first_step_left:
            self._first_step_left = True
            self.step_s.popleft()

    def took_writing(self, step: int, seconds: float) -> None:
        """Note how long the texts of the evaluation after `step` took: later ones end as early, in the same ratio."""
        if self.writing_s is not None and step < self.total and self.writing_s[0] > 0:
            self.writing_s = seconds, self.writing_s[1] * seconds / self.writing_s[0]

    def evaluation_s(self, step: int) -> float:
        """Return the seconds that the evaluation after `step` takes, 0 before one was timed."""
        last = int(step >= self.total)
        texts = self.writing_s[last] if self.writing_s is not None and self.writes_at(step) else 0.0
        return (self.token_s or 0.0) * self.tokens[last] + texts

    def expect(self, step: int, *, evaluates: bool = False) -> None:
        """Reckon when the run ends.

        Args:
            step: optimizer steps done.
            evaluates: whether the evaluation after `step` is still to be made.
        """
        if not self.step_s:
            return
        seconds = sum(self.step_s) / len(self.step_s) * (self.total - step)
        if step < self.total:
            between = (self.total - 1) // self.every - step // self.every
            seconds += between * self.evaluation_s(max(1, step)) + self.evaluation_s(self.total)
        seconds += self.evaluation_s(step) if evaluates else 0.0
        self._ends_at = time.monotonic() + seconds

    def remaining_s(self) -> float | None:
        """Return the seconds until the run ends; None before this process made a step."""
        return None if self._ends_at is None else max(0.0, self._ends_at - time.monotonic())
