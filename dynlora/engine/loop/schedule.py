"""What changes with the step: learning rate, reallocation steps, evaluations; and how long the run still takes."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from dynlora.config import RunConfig
from dynlora.errors import ConfigError

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


def lr_factor(step: int, total: int, warmup: float, shape: str) -> float:
    """Return the factor on the peak rate for optimizer step 1 .. total: a linear rise, then the named shape.

    Args:
        step: the optimizer step, counted from 1.
        total: optimizer steps of the run.
        warmup: fraction of the steps in which the rate rises.
        shape: linear, cosine or constant.
    """
    rise = max(1, round(warmup * total)) if warmup > 0 else 0
    done = step - 1
    if done < rise:
        return (done + 1) / (rise + 1)
    left = (total - done) / max(1, total - rise)
    if shape == "linear":
        return left
    return 1.0 if shape == "constant" else 0.5 * (1 - math.cos(math.pi * left))


@dataclass(frozen=True)
class Phases:
    """When capacity may move: after a warm-up, at even distances, and not in a frozen last phase.

    Attributes:
        warmup_steps: steps at the start without a change (PEFT's AdaLoRA: tinit).
        final_steps: steps at the end without a change (tfinal).
        allocate_every: steps between events (deltaT).
        total: optimizer steps of the run.
    """

    warmup_steps: int
    final_steps: int
    allocate_every: int
    total: int

    @classmethod
    def of(
        cls,
        total: int,
        *,
        warmup_steps: int | None = None,
        final_steps: int | None = None,
        allocate_every: int | None = None,
        share: float = 0.02,
        memory: int = 7,
    ) -> Phases:
        """Fill in defaults that hold for any length: warm-up 12 %, last phase 30 %, an event every `share`.

        Events are never closer than `memory` steps, the time the score's average needs, unless the run is so short
        that fewer than three would fit.

        Raises:
            ConfigError: when explicitly set values leave no step to move capacity in.
        """
        first = max(1, round(0.12 * total)) if warmup_steps is None else warmup_steps
        last = round(0.3 * total) if final_steps is None else final_steps
        if first + last >= total and (warmup_steps is not None or final_steps is not None):
            raise ConfigError(
                f"strategy.warmup_steps={first}, strategy.final_steps={last}: together they must be less than the "
                f"run's {total} steps; lower one of them or raise train.steps"
            )
        window = max(1, total - last - first)
        every = (
            max(round(share * total), min(memory, max(1, window // 3))) if allocate_every is None else allocate_every
        )
        if allocate_every is not None and allocate_every > window:
            raise ConfigError(
                f"strategy.allocate_every={allocate_every}: no reallocation fits into the {window} steps "
                "between warm-up and "
                "last phase; lower it or raise train.steps"
            )
        return cls(first, last, every, total)

    def events(self) -> list[int]:
        """Return the steps after which capacity may move."""
        return [step for step in range(1, self.total + 1) if self.is_event(step)]

    def is_event(self, step: int) -> bool:
        """Say whether capacity may move after `step`."""
        return (
            self.warmup_steps < step <= self.total - self.final_steps
            and (step - self.warmup_steps) % self.allocate_every == 0
        )

    def progress(self, step: int) -> float:
        """Return how far the moving phase has come after `step`, 0 to 1."""
        window = max(1, self.total - self.final_steps - self.warmup_steps)
        return min(1.0, max(0.0, (step - self.warmup_steps) / window))


def eval_every(config: RunConfig, total: int) -> int:
    """Return the steps between evaluations: as set, or a quarter of the run."""
    return config.log.eval_every or max(1, math.ceil(total / 4))


def checkpoint_every(config: RunConfig, total: int) -> int:
    """Return the steps between checkpoints: as set, or a tenth of the run, at most 500."""
    return config.log.checkpoint_every or min(500, max(1, math.ceil(total / 10)))
