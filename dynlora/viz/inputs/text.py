"""Captions of the Inputs page: what each chart shows, in a sentence."""

from __future__ import annotations

import pandas as pd

from dynlora.analysis.frames import at_highest
from dynlora.analysis.gate_effect import GateEffect
from dynlora.text import one_line, plural, score, sentence_case


def conclusion(
    groups: pd.DataFrame, metric: str, n: int | None, effect: GateEffect | None, *, gated: bool, low_is_good: bool
) -> str:
    """Say how far the groups differ in their result, and whether the gates tell them apart.

    Args:
        groups: columns group and metric.
        metric: what is recorded of each group.
        n: held-out examples that were evaluated; None when that is not known.
        effect: of the groups on the gates.
        gated: whether the run has gates.
        low_is_good: whether less of the metric is better.
    """
    known = groups.dropna(subset=["metric"])
    if known.empty:
        return f"This run has no results by input group. {_gates_tell(effect, gated=gated)}"
    where = f"{plural(len(known), 'input group')}{'' if n is None else f', n = {n:,} held-out examples'}"
    ordered = known.sort_values("metric", ascending=low_is_good, kind="stable")
    best, worst = ordered.iloc[0], ordered.iloc[-1]
    name, (high, low) = one_line(sentence_case(metric), 40), (score(best["metric"]), score(worst["metric"]))
    if len(known) == 1:
        group = one_line(best["group"], 40)
        tell = _gates_tell(effect, gated=gated)
        return f"{name} is {high} in the one group, {group} ({where}). {tell} Set data.group_by to compare groups."
    if high == low:
        return f"{name} is {high} for all groups ({where}). {_gates_tell(effect, gated=gated)}"
    extremes = f"best for {one_line(best['group'], 40)} ({high}) and worst for {one_line(worst['group'], 40)} ({low})"
    return f"{name} is {extremes}: {where}. {_gates_tell(effect, gated=gated)}"


def _gates_tell(effect: GateEffect | None, *, gated: bool) -> str:
    """Say whether the gates distinguish the groups, with the number of examples."""
    if not gated:
        return "The run has no gates: its adapters treat every input alike."
    if effect is None:
        return "The gates cannot be compared: fewer than two groups have examples in the probe set."
    n = f"n = {effect.examples} probe examples"
    if not effect.is_significant.any():
        return f"No gate differs between the groups beyond chance ({n})."
    different, gates = int(effect.is_significant.sum()), len(effect.is_significant)
    return f"{different} of {gates} gates differ between the groups beyond chance ({n})."


def probe(examples: pd.DataFrame) -> str:
    """Say how many probe examples are shown and how many the model gets wrong."""
    known = examples.dropna(subset=["loss"])
    if known.empty:
        return f"{len(examples)} examples, not yet evaluated."
    hardest = known.loc[at_highest(known["loss"])]
    return (
        f"{len(examples)} probe examples, a fixed sample of the held-out ones: mean loss "
        f"{known['loss'].mean():.3f} nats; highest loss {hardest['loss']:.2f}."
    )


def depth(lines: pd.DataFrame) -> str:
    """Say where the gates of the chosen examples differ most over depth; columns example, layer, gate."""
    spread = lines.groupby("layer")["gate"].agg(lambda values: values.max() - values.min())
    count = lines["example"].nunique()
    if count < 2:
        return (
            f"One example; its mean gate ranges from {lines['gate'].min():.3f} to {lines['gate'].max():.3f} "
            "over the layers."
        )
    return f"{count} examples; their mean gates differ most in layer {spread.idxmax()}, by {spread.max():.3f}."
