"""What advice on ranks and on the learning rate says in words: the conclusion, how sure it is, and what it rests on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

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
