"""Advice in words on ranks and on the learning rate, and the learning rate that a range test suggests.

The rule is the one that `benchmarks/rate.py` chose; docs/guides/advise.md has its figures.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dynlora.text import listed, number, one_line, percent, plural

NAMED = 2
"""Families that the conclusion names at each end."""

EVIDENCE = (
    "A prediction, no guarantee: docs/research/shrinking.md says what training with such ranks gained in our own runs. "
    "Train the uniform baseline beside it."
)
"""What goes with every piece of advice."""

LEVELS = {
    "high": "High confidence in the order of the modules",
    "moderate": "Moderate confidence in the order of the modules",
    "low": "Low confidence in the order of the modules",
}


def headline(answer: Mapping[str, Any]) -> str:
    """Say which families get most and least rank, and at which budget."""
    families = sorted(answer["families"], key=lambda family: -family["mean_rank"])
    at = f"within {answer['budget']:,} parameters"
    means = [round(family["mean_rank"], 1) for family in families]
    if len(set(means)) == 1:
        return f"Give every kind of module the mean rank {means[0]:g}, {at}."
    n = min(NAMED, len(families) // 2) or 1
    return f"Give most rank to {_named(families[:n])} and least to {_named(families[-n:])}, {at}."


def _named(families: Sequence[Mapping[str, Any]]) -> str:
    return listed([f"{one_line(family['name'], 40)} (mean {family['mean_rank']:.1f})" for family in families])


def confidence(answer: Mapping[str, Any]) -> str:
    """Say how far two halves of the look agree."""
    known = answer["confidence"]
    sentence = (
        f"{LEVELS[known['level']]}: two halves of the data place {percent(known['agreement'], 0)} of the budget alike"
    )
    if known["correlation"] is not None:
        sentence += f" (Spearman correlation of the modules' gains {known['correlation']:.2f})"
    return f"{sentence}."


def leave_out(answer: Mapping[str, Any]) -> str:
    """Say which families may be left out."""
    going = [family for family in answer["families"] if family["can_go"]]
    if not going:
        return "No family of modules is weak enough in both halves to be left out."
    names = listed([one_line(family["name"], 40) for family in going])
    share = percent(sum(family["gain_share"] for family in going), 0)
    return f"May be left out: {names}, with {share} of the predicted gain."


def layer(row: Mapping[str, Any]) -> str:
    """Say what leaving out the lowest layers saves and costs."""
    change = percent(1 - row["step_time"], 0)
    span = f"quartiles {percent(1 - row['high'], 0)} to {percent(1 - row['low'], 0)}"
    gain = percent(row["gain_share"], 0)
    return (
        f"Without adapters on the lowest {row['without_layers']} of {row['of']} layers a step takes {change} less time "
        f"({span}); {gain} of the predicted gain is there."
    )


def look(answer: Mapping[str, Any]) -> str:
    """Say what the advice is made from."""
    of = answer["look"]
    return (
        f"From {of['look_steps']} steps of plain LoRA at rank {answer['uniform_rank']} after {of['warm_steps']} steps "
        f"to warm up: {of['rows']:,} training examples, {of['seconds']:.0f} s. Nothing was saved."
    )


RATE_EVIDENCE = (
    "A short test, no guarantee: docs/guides/advise.md says how near to the best of a grid such rates were. "
    "A longer run or a larger batch can have another best rate."
)
"""What goes with every suggested rate."""

RATE_LEVELS = {"high": "High", "moderate": "Moderate", "low": "Low"}

NO_RATE = {
    "flat": "No rate is suggested: the loss does not fall beyond its noise at any rate up to {last}.",
    "breaks": "No rate is suggested: training breaks at {breaks} before the loss falls.",
    "short": "No rate is suggested: the test has too few steps.",
}
"""Sentences on why no rate is suggested, by `RateSuggestion.why`."""


def rate_headline(answer: Mapping[str, Any]) -> str:
    """Say which rate is suggested, and from which on training breaks."""
    breaks, last = answer["breaks"], number(max(test["rates"][-1] for test in answer["tests"]))
    if answer["rate"] is None:
        return NO_RATE[answer["why"]].format(last=last, breaks=number(breaks))
    end = f"training breaks at {number(breaks)}" if breaks else f"training does not break up to {last}"
    return f"Train with the rate {number(answer['rate'])}; {end}."


def rate_confidence(answer: Mapping[str, Any]) -> str:
    """Say how far two halves of each test agree."""
    level, tests = RATE_LEVELS[answer["level"]], answer["tests"]
    halves = "its two halves suggest" if len(tests) == 1 else f"the halves of {len(tests)} tests suggest"
    if answer["low"] is None:
        return f"{level} confidence: a half of the steps suggests no rate."
    same = number(answer["low"]) == number(answer["high"])
    between = number(answer["low"]) if same else f"{number(answer['low'])} to {number(answer['high'])}"
    return f"{level} confidence: {halves} {between}."


def rate_curve(answer: Mapping[str, Any]) -> str:
    """Say what the curve is, and where its landmarks are."""
    has_control = any(test.get("control") for test in answer["tests"])
    what = "Loss less that of the same steps without adapters" if has_control else "Loss"
    if answer["rate"] is None:
        return f"{what}, of each step; the rate grows by the same factor from step to step."
    rise = f"rises from {number(answer['lowest'])} on" if answer["lowest"] else "falls to the end"
    subject = f"{what}. It" if has_control else "The loss"
    landmarks = f"{subject} falls fastest at {number(answer['steepest'])} and {rise}."
    if not answer["breaks"] or answer["rate"] == answer["steepest"]:
        return f"{landmarks} The steepest fall is the suggestion."
    return (
        f"{landmarks} The suggestion is {number(answer['rate'] / answer['breaks'])} of the rate that breaks training."
    )


CAPACITY = {
    "ample": "This rank is ample",
    "tight": "This rank is tight",
    "too small": "This rank is too small, if all of it is to be learned",
}


def rank_capacity(answer: Mapping[str, Any]) -> str:
    """Say whether the rank is enough; empty where that is not known."""
    known = answer.get("capacity")
    if not known:
        return ""
    return (
        f"{CAPACITY[known['verdict']]}: at most {number(round(known['bits']))} bits are to be learned "
        f"({number(known['examples'])} examples of {known['nats'] - known['irreducible']:.2f} nats that the base model "
        f"does not know), and {number(known['parameters'])} parameters hold about {number(round(known['capacity']))}. "
        "Two bits a parameter are a rule of thumb: of random facts, 300 steps taught at most half a bit a parameter."
    )


def rate_look(answer: Mapping[str, Any]) -> str:
    """Say what the suggestion is made from, and what it cost."""
    of, tests = answer["look"], plural(len(answer["tests"]), "range test")
    return (
        f"From {tests} of {of['method']} at rank {of['rank']}: {of['steps']} steps, "
        f"{of['rows']:,} training examples, {of['seconds']:.0f} s. Nothing was saved."
    )


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

WIDTHS = ((1.5, "high"), (3.0, "moderate"))
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
    return next((name for most, name in WIDTHS if between[1] <= most * between[0]), "low")
