"""Captions of the Capacity page: what each chart shows, in a sentence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from dynlora.analysis.flows import Balance
from dynlora.analysis.frames import at_highest, at_lowest
from dynlora.analysis.signals import About
from dynlora.analysis.stats import spearman
from dynlora.text import listed, minus, number, one_line, percent, plural, score, spans
from dynlora.viz.capacity.searches import Search


def rank_caption(
    modules: pd.DataFrame, start: np.ndarray, values: np.ndarray | None, step: int, events: Sequence[int]
) -> str:
    """Return the sentence under the map of ranks; arrays as recorded, at the first step and at `step`."""
    if values is None:
        return f"No rank was recorded up to step {step}."
    return rank_moved(modules, start, values, step, events)


def sentence(about: About, modules: pd.DataFrame, values: np.ndarray | None, step: int) -> str:
    """Return the sentence under a signal's map; values as recorded, at `step`."""
    if values is None:
        return f"No {one_line(about.word, 40)} was recorded up to step {step}."
    if about.grouping:
        return groups_at(values, step)
    if about.choices:
        return choices_at(values, about.choices, step)
    return signal_at(modules, values, one_line(about.word, 40), step)


def binned(heat: Any) -> str:
    """Say how many of the recorded steps a heat map shows; empty when it shows them all."""
    shown = heat.frame.shape[1]
    return (
        ""
        if shown >= heat.points
        else (f"{shown:,} of {heat.points:,} recorded steps shown: the last step of each bin.")
    )


def rank_moved(modules: pd.DataFrame, start: np.ndarray, end: np.ndarray, step: int, events: Sequence[int]) -> str:
    """Say from where to where rank moved between the first step and `step`; arrays as recorded."""
    change = pd.Series((end - start)[modules["position"]])
    if not change.abs().sum():
        if not events:
            return f"No rank has moved up to step {step}."
        return f"No rank has moved up to step {step}; the first reallocation is after step {min(events)}."
    past = [event for event in events if event <= step]
    since = f"; the last reallocation was after step {past[-1]}" if past and past[-1] < step else ""
    lost, won = modules[(change < 0).to_numpy()], modules[(change > 0).to_numpy()]
    source = _places(lost, change[(change < 0).to_numpy()].abs())
    target = _places(won, change[(change > 0).to_numpy()])
    if not len(won):
        return f"Up to step {step}, rank was removed from {source}{since}."
    return f"Up to step {step}, rank moved from {source} to {target}{since}."


def _places(modules: pd.DataFrame, amount: pd.Series) -> str:
    """Return the kinds with the largest changes and the layers they lie in."""
    if not len(modules):
        return "unused budget"
    rows = modules.assign(amount=amount.to_numpy())
    order = rows.groupby("label", sort=False)["amount"].sum().sort_values(ascending=False, kind="stable").index
    places: dict[str, list[str]] = {}
    for label in order[:3]:
        layers = [int(layer) for layer in rows.loc[rows["label"] == label, "layer"].dropna()]
        where = f" in {'layer' if len(set(layers)) == 1 else 'layers'} {spans(layers)}" if layers else ""
        places.setdefault(where, []).append(one_line(label, 40))
    words = [listed(labels) + where for where, labels in places.items()]
    return listed(words, limit=4) + (" and others" if len(order) > 3 else "")


def signal_at(modules: pd.DataFrame, values: np.ndarray, title: str, step: int) -> str:
    """Say where a signal is strongest at a step, and how uneven it is; `values` as recorded."""
    found = pd.Series(values[modules["position"]], index=modules["short"]).dropna()
    if found.empty:
        return f"No {title} was recorded up to step {step}."
    top = found.nlargest(3)
    words = f"At step {step}, {title} is highest in {listed([one_line(name, 40) for name in top.index])}"
    total, tenth = found.clip(lower=0).sum(), max(1, round(len(found) / 10))
    if title != "gate" and total > 0:
        share = found.nlargest(tenth).clip(lower=0).sum() / total
        modules_word = "module has" if tenth == 1 else f"{tenth} modules have"
        return f"{words}; the top {modules_word} {percent(share, 0)} of the total over {len(found)} modules."
    return f"{words}; the values range from {number(found.min())} to {number(found.max())}."


def groups_at(values: np.ndarray, step: int) -> str:
    """Say how many groups the modules form at a step, and how large the largest is; equal values belong together."""
    _, sizes = np.unique(values[np.isfinite(values)], return_counts=True)
    if not len(sizes):
        return f"No groups were recorded up to step {step}."
    alone = int((sizes == 1).sum())
    words = f"At step {step}, {int(sizes.sum())} modules form {len(sizes)} groups"
    if alone == len(sizes):
        return f"{words} of one module each."
    rest = f", and {alone} have one module" if alone else ""
    return (
        f"{words}. The largest group has {int(sizes.max())} modules{rest}. Neighbouring rows of one colour "
        "are one group."
    )


def choices_at(values: np.ndarray, choices: Sequence[str], step: int) -> str:
    """Say how many modules have made each choice at a step; `values` index `choices`."""
    chosen = values[np.isfinite(values)].round().astype(int)
    counts = [(int((chosen == index).sum()), one_line(name, 40)) for index, name in enumerate(choices)]
    said = [f"{count} {name}" for count, name in sorted(counts, key=lambda pair: -pair[0]) if count]
    return f"At step {step}: {listed(said, limit=6)}." if said else f"No choice was recorded up to step {step}."


def picture(state: pd.DataFrame, uniform: int | None) -> str:
    """Explain the marks of the model picture, and name the widest module."""
    order = listed([one_line(label, 24) for label in dict.fromkeys(state.sort_values("position")["label"])], limit=12)
    widest = state.loc[at_highest(state["rank"])] if len(state) else None
    tick = f" Dashed line: uniform rank {uniform}." if uniform else ""
    most = f" Highest rank: {int(widest['rank'])} in {one_line(widest['short'], 40)}." if widest is not None else ""
    return f"Bar length: rank. Colour: importance.{tick}{most} Each block from top to bottom: {order}."


def flow(traced: pd.DataFrame, sides: Balance, events: int, first: int, last: int) -> str:
    """Say how much rank moved between two steps, and whether the totals match."""
    moved = traced[(traced["origin"] != traced["holder"]) & (traced["holder"] >= 0)]
    if moved.empty and not sides.released:
        return f"No rank moved between step {first} and step {last}."
    check = "The totals match" if sides.adds_up else f"The totals differ by {number(round(sides.gap))}"
    amount = number(round(moved["parameters"].sum()))
    return (
        f"After {plural(events, 'reallocation')}, {amount} parameters are in other modules than at step {first}. "
        f"Pale bands did not move; moves that were undone are not shown. {check} (without gates): before, "
        f"{number(round(sides.held_before))} in use and {number(round(sides.free))} free; after, "
        f"{number(round(sides.held_after))} in use and {number(round(sides.released))} released."
    )


def search(found: Search, drawn: int) -> str:
    """Say what a search tried and chose, and how much its rounds gained; `drawn` of its candidates are shown."""
    tried, rounds = found.tried, found.tried["round"].nunique()
    if tried.empty:
        return f"No candidate of the search after step {found.step} has a finite loss."
    words = f"The search after step {found.step} tried {plural(len(tried), 'candidate')} in {plural(rounds, 'round')}"
    if found.chosen is not None:
        used, loss_ = found.chosen
        share = f", {percent(used / found.limit)} of the limit of {number(int(found.limit))}" if found.limit else ""
        words += f" and chose one with {number(int(used))} parameters{share} and a loss of {score(loss_)}"
    first = tried.loc[tried["round"] == tried["round"].min(), "loss"].min()
    pareto = int(tried["pareto"].sum())
    cut = f" {drawn:,} of {len(tried):,} shown." if drawn < len(tried) else ""
    failed = f" {found.failed} more had no finite loss." if found.failed else ""
    other = f" This is the last of {found.searches} searches." if found.searches > 1 else ""
    return (
        f"{words}. The best loss of the first round was {score(first)}. The Pareto set has "
        f"{plural(pareto, 'candidate')}: "
        f"no other candidate has as low a loss with as few parameters.{cut}{failed}{other}"
    )


def steadiness(agreement: pd.DataFrame) -> str:
    """Say how far the order of importance can be trusted from one reallocation to the next."""
    if agreement.empty:
        return "There are fewer than two reallocations to compare."
    middle = float(agreement["value"].median())
    verdict = "stable" if middle >= 0.8 else "fairly stable" if middle >= 0.5 else "mostly noise"
    return (
        f"The order of importance from one reallocation to the next is {verdict}: median Spearman correlation "
        f"{middle:.2f} over {len(agreement)} pairs, minimum {agreement['value'].min():.2f}."
    )


def followed(state: pd.DataFrame) -> str:
    """Say whether rank followed importance, and which modules are farthest from the diagonal."""
    rows = state.dropna(subset=["importance_share", "rank_share"])
    if rows.empty or not rows["importance_share"].sum():
        return "No importance was recorded up to this step."
    rho = spearman(rows["importance_share"], rows["rank_share"])
    gap = rows["importance_share"] - rows["rank_share"]
    more, idle = rows.loc[at_highest(gap), "short"], rows.loc[at_lowest(gap), "short"]
    first = (
        ("All ranks are equal, so there is no correlation")
        if not np.isfinite(rho)
        else f"Spearman correlation {minus(f'{rho:.2f}')}"
    )
    return f"{first}. Most importance for its rank: {one_line(more, 40)}. Least: {one_line(idle, 40)}."
