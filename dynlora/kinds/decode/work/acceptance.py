"""Whether a draft's step is kept: a function of its reward, or of chance as a control."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from dynlora.engine.randomness import stream_seed
from dynlora.errors import ConfigError

SLOPE = 10.0
"""How steep the probability of `sigmoid` is: from 0.27 to 0.73 within 0.2 of reward."""


def _threshold(reward: float, value: float) -> float:
    """Return 1 where the reward is at least the threshold."""
    return float(reward >= value)


def _constant(reward: float, value: float) -> float:
    """Return p, whatever the reward."""
    return value


def _clip(reward: float, value: float) -> float:
    """Return min(1, max(0, reward / value)): certain from the threshold on, in proportion below."""
    if value <= 0 or math.isinf(value):
        return float(reward >= value)
    return min(1.0, max(0.0, reward / value))


def _sigmoid(reward: float, value: float) -> float:
    """Return σ(10 · (reward - value)): one half at the threshold."""
    if math.isinf(value):
        return float(value < 0)
    exponent = SLOPE * (reward - value)
    return 1 / (1 + math.exp(-exponent)) if exponent > -500 else 0.0


PROBABILITIES: Mapping[str, Callable[[float, float], float]] = {
    "threshold": _threshold,
    "constant": _constant,
    "clip": _clip,
    "sigmoid": _sigmoid,
}
"""Every rule: probability that a step is kept, of its reward and the rule's value."""


@dataclass(frozen=True)
class Acceptance:
    """A rule with its value.

    Attributes:
        kind: one of `PROBABILITIES`.
        value: the threshold, or p of `constant`.
        seed: of what is drawn.
    """

    kind: str
    value: float
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse a rule that there is not, and a value that it cannot have.

        Raises:
            ConfigError: one sentence.
        """
        if self.kind not in PROBABILITIES:
            raise ConfigError(f"--accept {self.kind}: must be one of {', '.join(PROBABILITIES)}")
        if math.isnan(self.value):
            raise ConfigError("--threshold nan: is not a number to compare with; give one such as 0.7, or inf")
        if self.kind == "constant" and not 0 <= self.value <= 1:
            raise ConfigError(f"--threshold {self.value:g}: is a probability with --accept constant; give 0 to 1")

    @property
    def needs_reward(self) -> bool:
        """Whether the rule looks at the reward."""
        return self.kind != "constant"

    def keeps(self, reward: float, problem: int, step: int) -> bool:
        """Say whether a step is kept.

        What is drawn depends on seed, problem and position alone, so that a higher threshold never keeps a step that a
        lower one gives up.
        """
        probability = PROBABILITIES[self.kind](reward, self.value)
        return probability >= 1 or stream_seed(self.seed, "accept", problem, step) / 2**63 < probability
