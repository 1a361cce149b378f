"""What changes with the step: the learning rate, and the steps after which capacity may move."""

from __future__ import annotations

import math
from dataclasses import dataclass

from dynlora.config import RunConfig
from dynlora.errors import ConfigError


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

    @property
    def first_event(self) -> int:
        """The first step after which capacity may move."""
        return self.warmup_steps + self.allocate_every

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
