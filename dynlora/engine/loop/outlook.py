"""How long a run still takes, by what its steps and evaluations took, and which evaluations write texts."""

from __future__ import annotations

import math
import time
from collections import deque
from dataclasses import dataclass, field, replace

from dynlora.engine.evaluation.written import WritingCost

WRITING_SHARE = 0.2
"""Share of a run that the texts of the evaluations before the last may take."""

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
        step_tokens: tokens of an optimizer step, in the mean.
        tokens: held-out tokens that an evaluation before the last reads, and that the last one reads.
        step_s: seconds of the recent steps of this process, checkpoints and records included.
        token_s: seconds an evaluation takes per token; None before the first of this process.
        writing: cost of the texts of an evaluation before the last, and of the last; None where none are written.
        writes: which evaluations write texts, `ALWAYS`, `FIRST` or `LAST`.
    """

    total: int
    every: int
    step_tokens: float
    tokens: tuple[float, float]
    step_s: deque[float] = field(default_factory=lambda: deque(maxlen=20))
    token_s: float | None = None
    writing: tuple[WritingCost, WritingCost] | None = None
    writes: str = ALWAYS
    _first_step_left: bool = False
    _ends_at: float | None = None

    def writes_at(self, step: int) -> bool:
        """Say whether the evaluation after `step` writes texts."""
        return step >= self.total or self.writes == ALWAYS or (self.writes == FIRST and step == 0)

    def decide(self) -> None:
        """Set which evaluations write texts, before training, by what a forward pass and a text take."""
        if self.writing is None:
            return
        evaluations = math.ceil(self.total / self.every)
        steps = self.total * self.step_tokens * STEP_PER_FORWARD
        run_s = (self.token_s or 0.0) * (steps + evaluations * self.tokens[0] + self.tokens[1])
        self.writes = writing_evaluations(self.writing[0].seconds, evaluations, run_s)

    def took_step(self, seconds: float) -> None:
        """Note how long a step took; the first of a process, which is slower, is forgotten after two more."""
        self.step_s.append(seconds)
        if len(self.step_s) == 3 and not self._first_step_left:
            self._first_step_left = True
            self.step_s.popleft()

    def took_writing(self, step: int, seconds: float) -> None:
        """Note how long the texts of the evaluation after `step` took: later ones end as early, in the same ratio."""
        if self.writing is not None and step < self.total and self.writing[0].seconds > 0:
            ratio = seconds / self.writing[0].seconds
            early, last = self.writing
            self.writing = (replace(early, seconds=seconds), replace(last, seconds=ratio * last.seconds))

    def evaluation_s(self, step: int) -> float:
        """Return the seconds that the evaluation after `step` takes, 0 before one was timed."""
        last = int(step >= self.total)
        texts = self.writing[last].seconds if self.writing is not None and self.writes_at(step) else 0.0
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
