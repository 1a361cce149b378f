"""The learning rate that a range test suggests: the loss of a short run whose rate grows by the same factor each step.

The rule is the one that `benchmarks/rate.py` chose; docs/guides/advise.md has its figures.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

WIDTH = 0.29
"""Standard deviation of the smoothing over ln(rate): a factor of 1.34, so that a half is as smooth as the whole."""

LEAST_STEPS = 10
"""Finite losses below which a curve says nothing."""

CLEAR = 4.0
"""A change of the smoothed loss counts when it is this many times its noise."""

ROUNDING = 1e-9
"""A change counts from this part of the loss on."""

CLIMB = 0.5
"""Part of the fall that the loss climbs back at the rate that breaks training."""

BELOW = {"steepest": 1.0, "lowest": 3.0, "breaks": 5.0}
"""How many times below each of its landmarks a rule places the rate."""

RULE, RULE_WITHOUT_CONTROL = "breaks", "steepest"
"""The rule of curves with a control and without one.

Where nothing breaks, the steepest fall is the suggestion.
"""

ALIKE = 2.0
"""Factor within which two suggestions agree."""

LEVELS = ((1.5, "high"), (3.0, "moderate"))
"""Up to which factor between the suggestions of the halves confidence has a name."""


@dataclass(frozen=True)
class RateCurve:
    """A range test.

    Attributes:
        rates: of the steps, rising.
        losses: of the batches, before the step; not finite where training broke.
        control: losses of the same batches while the adapters stay, and a head of its own rate learns; empty where the
            head has that of the adapters.
    """

    rates: tuple[float, ...]
    losses: tuple[float, ...]
    control: tuple[float, ...] = ()

    @property
    def effect(self) -> np.ndarray:
        """The loss less that of the control, (steps,): what the adapters do; the loss itself without a control."""
        with np.errstate(invalid="ignore"):  # both may be infinite
            return np.asarray(self.losses, float) - (np.asarray(self.control, float) if self.control else 0.0)

    def halves(self) -> tuple[RateCurve, RateCurve]:
        """Return every other step from the first, and from the second on."""
        first, second = ((self.rates[s::2], self.losses[s::2], self.control[s::2]) for s in (0, 1))
        return RateCurve(*first), RateCurve(*second)


@dataclass(frozen=True)
class RateSuggestion:
    """What a curve suggests; "loss" is its effect, what the adapters do beside the control.

    Attributes:
        rate: None where the curve says nothing.
        why: empty with a rate; else `flat` (the loss does not fall beyond its noise), `breaks` (training breaks before
            it falls) or `short` (too few steps).
        steepest: rate at which the smoothed loss falls fastest.
        lowest: rate from which on it rises; None where it still falls at the end.
        breaks: rate at which it has climbed back by half, or is not finite; None where it does not come to that.
        smoothed: the smoothed losses, of the finite steps.
    """

    rate: float | None
    why: str = ""
    steepest: float | None = None
    lowest: float | None = None
    breaks: float | None = None
    smoothed: tuple[float, ...] = ()


def suggested_rate(curve: RateCurve, rule: str | None = None) -> RateSuggestion:
    """Return the rate that a curve suggests.

    Args:
        curve: of one range test, or the mean of several.
        rule: a key of `BELOW`: the landmark that the rate is placed below; None for that of such a curve.
    """
    rule = rule or (RULE if curve.control else RULE_WITHOUT_CONTROL)
    rates = np.asarray(curve.rates, dtype=float)
    finite = np.isfinite(curve.effect)
    n = len(finite) if finite.all() else int(finite.argmin())
    broken = float(rates[n]) if n < len(rates) else None
    if n < LEAST_STEPS:
        return RateSuggestion(None, "short" if broken is None else "breaks", breaks=broken)
    losses = curve.effect[:n]
    smooth, noise = _smoothed(np.log(rates[:n]), losses)
    least = max(CLEAR * noise, ROUNDING * float(np.abs(smooth).max()))
    place = int(smooth.argmin())
    fall = float(smooth[: place + 1].max() - smooth[place])
    up = np.flatnonzero(smooth[place:] > smooth[place] + max(CLIMB * fall, least))
    breaks = float(rates[place + up[0]]) if len(up) else broken
    line = tuple(smooth.tolist())
    if fall <= least:
        return RateSuggestion(None, "flat" if breaks is None else "breaks", breaks=breaks, smoothed=line)
    slope = np.gradient(smooth, np.log(rates[:n]))[: place + 1]
    steepest = float(rates[int(slope.argmin())])
    lowest = float(rates[place]) if breaks is not None or place < n - 1 else None
    marks = {"steepest": steepest, "lowest": float(rates[place]), "breaks": breaks}
    mark = marks[rule]
    rate = steepest if mark is None else float(np.clip(mark / BELOW[rule], rates[0], rates[-1]))
    return RateSuggestion(rate, "", steepest, lowest, breaks, line)


def _smoothed(place: np.ndarray, losses: np.ndarray) -> tuple[np.ndarray, float]:
    """Return the losses, smoothed, and the noise of that: a robust standard deviation, (n,)."""
    weights = np.exp(-0.5 * ((place[:, None] - place) / WIDTH) ** 2)
    weights /= weights.sum(1, keepdims=True)
    middle = weights[len(losses) // 2]
    return weights @ losses, batch_noise(losses) * float(np.sqrt((middle**2).sum()))


def batch_noise(losses: np.ndarray) -> float:
    """Return the noise of the loss of a batch, whatever its trend: a robust standard deviation."""
    jumps = np.diff(losses, 2) / math.sqrt(6)  # a draw's weights in it are 1, -2 and 1
    return 1.4826 * float(np.median(np.abs(jumps)))


def mean_curve(curves: Sequence[RateCurve]) -> RateCurve:
    """Return the mean of range tests over the same rates, of what the adapters do; one that broke breaks it.

    It has a control of zeros where all of them have one.
    """
    n = max(len(curve.rates) for curve in curves)
    losses = np.full((len(curves), n), math.nan)
    for row, curve in zip(losses, curves, strict=True):
        row[: len(curve.losses)] = curve.effect
    rates = next(curve.rates for curve in curves if len(curve.rates) == n)
    control = (0.0,) * n if all(curve.control for curve in curves) else ()
    return RateCurve(rates, tuple(losses.mean(0).tolist()), control)


def curves_of(answer: Mapping[str, Any]) -> list[RateCurve]:
    """Return the tests of a `RateAnswer`, as plain values; NaN where a loss was not finite."""
    return [
        RateCurve(tuple(test["rates"]), _numbers(test["losses"]), _numbers(test.get("control", ())))
        for test in answer["tests"]
    ]


def _numbers(losses: Sequence[float | None]) -> tuple[float, ...]:
    return tuple(math.nan if loss is None else loss for loss in losses)


def span(curves: Sequence[RateCurve]) -> tuple[float, float] | None:
    """Return the least and the largest suggestion of the curves' halves; None where one suggests none."""
    rates = [suggested_rate(half).rate for curve in curves for half in curve.halves()]
    known = [rate for rate in rates if rate is not None]
    return (min(known), max(known)) if known and len(known) == len(rates) else None


def level(between: tuple[float, float] | None) -> str:
    """Return how sure a suggestion is by the span of the halves: high, moderate or low."""
    if between is None:
        return "low"
    return next((name for most, name in LEVELS if between[1] <= most * between[0]), "low")
