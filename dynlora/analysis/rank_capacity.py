"""Is a rank enough? What is to be learned, in bits, against what adapters of a size can hold."""

from __future__ import annotations

import math

BITS_PER_PARAMETER = 2.0
"""What an adapter holds, about ("LoRA Without Regret", 2025); a rule of thumb.

`benchmarks/rank_capacity.py`: too much for random facts, of which 300 steps taught 0.54 bits a parameter at most, and
not too much for three tasks with classes, where rank 4 gained nothing over rank 1. No one number fits both.
"""

ROOMY = 0.5
"""Part of its capacity up to which an adapter is ample."""

AMPLE, TIGHT, TOO_SMALL = "ample", "tight", "too small"


def bits_to_learn(nats: float, irreducible: float, examples: int) -> float:
    """Return what a data set holds beyond the base model.

    Args:
        nats: loss of the base model per example.
        irreducible: part of it that is chance.
        examples: of the data set.
    """
    return max(0.0, nats - irreducible) * examples / math.log(2)


def capacity_bits(parameters: int) -> float:
    """Return what adapters with so many parameters hold."""
    return BITS_PER_PARAMETER * parameters


def verdict(bits: float, parameters: int) -> str:
    """Return whether adapters hold so many bits: ample, tight or too small."""
    capacity = capacity_bits(parameters)
    if bits <= ROOMY * capacity:
        return AMPLE
    return TIGHT if bits <= capacity else TOO_SMALL
