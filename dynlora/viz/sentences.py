"""The one plain sentence under each chart, computed from what the chart shows.

Sentences are plain text with names of an untrusted run in them: whoever shows one escapes it.
"""

# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false, reportGeneralTypeIssues=false
# (pandas comes without types: a column is taken for a frame and a frame for a column)
from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from dynlora.viz.capacity.flows import Balance
from dynlora.viz.capacity.model import spearman
from dynlora.viz.capacity.searches import Search
from dynlora.viz.inputs.gate_effect import GateEffect
from dynlora.viz.kit.text import listed, number, one_line, percent, plural, score, spans
from dynlora.viz.run.figures import smoothed


def rank_moved(modules: pd.DataFrame, start: np.ndarray, end: np.ndarray, step: int, events: Sequence[int]) -> str:
    """Say from where to where rank moved between the first step and `step`; arrays as recorded."""
    change = pd.Series((end - start)[modules["position"]])
    if not change.abs().sum():
        if not events:
            return f"Every module keeps its rank up to step {step}: nothing was moved."
        return f"Up to step {step} nothing has moved; the first reallocation came after step {min(events)}."
    past = [event for event in events if event <= step]
    since = f"; nothing has moved since step {past[-1]}" if past and past[-1] < step else ""
    lost, won = modules[(change < 0).to_numpy()], modules[(change > 0).to_numpy()]
    source = _places(lost, change[(change < 0).to_numpy()].abs())
    target = _places(won, change[(change > 0).to_numpy()])
    if not len(won):
        return f"By step {step} rank was taken from {source}{since}."
    return f"By step {step} rank moved from {source} to {target}{since}."


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
    words = f"At step {step} {title} is highest in {listed([one_line(name, 40) for name in top.index])}"
    total, tenth = found.clip(lower=0).sum(), max(1, round(len(found) / 10))
    if title != "gate" and total > 0:
        share = found.nlargest(tenth).clip(lower=0).sum() / total
        modules_word = "module holds" if tenth == 1 else f"{tenth} modules hold"
        return f"{words}; the top {modules_word} {percent(share, 0)} of the sum over all {len(found)}."
    return f"{words}; it runs from {number(found.min())} to {number(found.max())}."


def groups_at(values: np.ndarray, step: int) -> str:
    """Say how many groups the modules form at a step, and how large the largest is; equal values belong together."""
    _, sizes = np.unique(values[np.isfinite(values)], return_counts=True)
    if not len(sizes):
        return f"No groups were recorded up to step {step}."
    alone = int((sizes == 1).sum())
    words = f"At step {step} {int(sizes.sum())} modules form {len(sizes)} groups"
    if alone == len(sizes):
        return f"{words}: each stands alone."
    rest = f", {alone} stand alone" if alone else ""
    return f"{words}; the largest holds {int(sizes.max())}{rest}. Neighbouring rows of one colour share."


def choices_at(values: np.ndarray, choices: Sequence[str], step: int) -> str:
    """Say how many modules have made each choice at a step; `values` index `choices`."""
    chosen = values[np.isfinite(values)].round().astype(int)
    counts = [(int((chosen == index).sum()), one_line(name, 40)) for index, name in enumerate(choices)]
    said = [f"{count} {name}" for count, name in sorted(counts, key=lambda pair: -pair[0]) if count]
    return f"At step {step}: {listed(said, limit=6)}." if said else f"No choice was recorded up to step {step}."


def picture(state: pd.DataFrame, uniform: int | None) -> str:
    """Explain the marks of the model picture, and name the widest module."""
    order = listed([one_line(label, 24) for label in dict.fromkeys(state.sort_values("position")["label"])], limit=12)
    widest = state.loc[state["rank"].idxmax()] if len(state) else None
    tick = f" Dashed: uniform rank {uniform}." if uniform else ""
    most = f" Widest: {one_line(widest['short'], 40)}, rank {int(widest['rank'])}." if widest is not None else ""
    return f"Bar: rank. Shade: importance.{tick}{most} In each block from the top: {order}."


def flow(traced: pd.DataFrame, sides: Balance, events: int, first: int, last: int) -> str:
    """Say how much changed hands between two steps, and whether both sides add up."""
    moved = traced[(traced["origin"] != traced["holder"]) & (traced["holder"] >= 0)]
    if moved.empty and not sides.released:
        return f"No capacity changed hands between step {first} and step {last}."
    check = "Both sides add up" if sides.adds_up else f"Both sides differ by {number(round(sides.gap))}"
    amount = number(round(moved["parameters"].sum()))
    return (
        f"After {events} reallocation{'s' if events != 1 else ''} {amount} parameters "
        f"work elsewhere than at step {first}; what came back in between is not drawn, pale bands stayed. {check}: "
        f"{number(round(sides.held_before))} in use and {number(round(sides.free))} free before, "
        f"{number(round(sides.held_after))} in use and {number(round(sides.released))} released after."
    )


def search(found: Search, drawn: int) -> str:
    """Say what a search tried and chose, and how much came of its rounds; `drawn` of its candidates are shown."""
    tried, rounds = found.tried, found.tried["round"].nunique()
    if tried.empty:
        return f"No candidate of the search after step {found.step} has a loss that is a number."
    words = f"The search after step {found.step} tried {plural(len(tried), 'candidate')} in {plural(rounds, 'round')}"
    if found.chosen is not None:
        used, loss_ = found.chosen
        share = f", {percent(used / found.limit)} of the limit of {number(int(found.limit))}" if found.limit else ""
        words += f" and chose one with {number(int(used))} parameters{share}, at a loss of {score(loss_)}"
    first = tried.loc[tried["round"] == tried["round"].min(), "loss"].min()
    pareto = int(tried["pareto"].sum())
    cut = f" {drawn:,} of {len(tried):,} shown." if drawn < len(tried) else ""
    failed = f" {found.failed} more had a loss that is no number." if found.failed else ""
    other = f" It is the last of {found.searches} searches." if found.searches > 1 else ""
    return (
        f"{words}; the best of the first round had {score(first)}. The Pareto set holds {pareto}: no other candidate "
        f"has as low a loss with as few parameters.{cut}{failed}{other}"
    )


def steadiness(agreement: pd.DataFrame) -> str:
    """Say how far the order of importance can be trusted from one reallocation to the next."""
    if agreement.empty:
        return "Fewer than two reallocations: nothing to compare yet."
    middle = float(agreement["value"].median())
    verdict = "steady" if middle >= 0.8 else "fairly steady" if middle >= 0.5 else "mostly noise"
    return (
        f"Between one reallocation and the next the order of importance is {verdict}: Spearman {middle:.2f} in the "
        f"median of {len(agreement)}, {agreement['value'].min():.2f} at the lowest."
    )


def followed(state: pd.DataFrame) -> str:
    """Say whether rank followed importance, and who stands farthest from the diagonal."""
    rows = state.dropna(subset=["importance_share", "rank_share"])
    if rows.empty or not rows["importance_share"].sum():
        return "No importance was recorded up to this step."
    rho = spearman(rows["importance_share"], rows["rank_share"])
    gap = rows["importance_share"] - rows["rank_share"]
    more, idle = rows.loc[gap.idxmax(), "short"], rows.loc[gap.idxmin(), "short"]
    first = "All ranks are equal, so rank did not follow" if not np.isfinite(rho) else f"Spearman {rho:.2f}"
    return f"{first}. Asks for more: {one_line(more, 40)}. Holds idle rank: {one_line(idle, 40)}."


def loss(train: pd.DataFrame, validation: pd.DataFrame) -> str:
    """Say how far the loss fell."""
    known = train.dropna(subset=["value"])
    if known.empty:
        return "No loss has been recorded yet."
    smooth = smoothed(known["value"])
    first, last = float(smooth.iloc[0]), float(smooth.iloc[-1])
    verb = "fell" if last < first else "rose"
    words = f"The smoothed training loss {verb} from {first:.3f} to {last:.3f} over {int(known['step'].iloc[-1])} steps"
    if len(validation):
        words += f"; held out it was {validation['value'].iloc[-1]:.3f} at step {int(validation['step'].iloc[-1])}"
    return words + "."


def metric(series: pd.DataFrame, name: str) -> str:
    """Say the last and the best value of a held-out metric; `series` holds step and value."""
    known = series.dropna(subset=["value"])
    if known.empty:
        return "The run has not been evaluated yet."
    last, best = known.iloc[-1], known.loc[known["value"].idxmax()]
    return (
        f"{one_line(name, 40)} {score(last['value'])} at step {int(last['step'])}; "
        f"highest {score(best['value'])} at step {int(best['step'])}."
    )


def learning_rate(series: pd.DataFrame) -> str:
    """Say where the learning rate peaked and stands."""
    if series.empty:
        return "No learning rate has been recorded yet."
    peak = series.loc[series["value"].idxmax()]
    return f"Peak {number(peak['value'])} at step {int(peak['step'])}, now {number(float(series['value'].iloc[-1]))}."


def budget(line: pd.DataFrame, limit: int | None) -> str:
    """Say how much of the budget is in use, and whether it was ever exceeded."""
    known = line.dropna(subset=["parameters"])
    if known.empty or not limit:
        return "The budget is not known yet."
    now, most = float(known["parameters"].iloc[-1]), float(known["parameters"].max())
    over = "never exceeded" if most <= limit else f"exceeded by {number(int(most - limit))}"
    return f"{number(int(now))} of {number(limit)} parameters in use ({percent(now / limit)}); {over}."


def step_time(times: pd.DataFrame, kept: pd.DataFrame) -> str:
    """Say what a step takes, the strategy's part of it, and what the optimizer keeps.

    Args:
        times: columns step, step_ms, strategy_ms.
        kept: bytes of the optimizer's state, columns step and value; empty in runs of earlier versions.
    """
    if times.empty:
        return "No step has been timed yet."
    total = times["step_ms"].sum()
    share = times["strategy_ms"].sum() / total if total else float("nan")
    words = f"A step takes {times['step_ms'].median():,.0f} ms in the median; the strategy takes {percent(share)} of it"
    most = 0.0 if kept.empty else float(kept["value"].max())
    return f"{words}; the optimizer keeps {most / 2**20:.2f} MiB." if most > 0 else f"{words}."


def confusion(counts: Sequence[Sequence[float]], labels: Sequence[str], step: int) -> str:
    """Say the share of right answers and the most frequent mistake."""
    table = np.asarray(counts, dtype=float)
    total = table.sum()
    if not total:
        return "Nothing was evaluated."
    wrong = table - np.diag(np.diag(table))
    truth, guess = np.unravel_index(int(wrong.argmax()), wrong.shape)
    words = f"At step {step} {percent(np.trace(table) / total)} of {number(int(total))} held-out rows were right"
    if not wrong.max():
        return words + "."
    return (
        f"{words}; the most frequent mistake is {one_line(labels[int(truth)], 40)} taken for "
        f"{one_line(labels[int(guess)], 40)} ({number(int(wrong.max()))} rows)."
    )


def gates(table: pd.DataFrame, modules: pd.DataFrame, effect: GateEffect | None, step: int) -> str:
    """Say whether groups open gates differently beyond chance, and where most; `table` is groups by modules."""
    values = table.to_numpy(float)
    if not values.size or not np.isfinite(values).any():
        return "No gates were recorded up to this step."
    if effect is None:
        return f"At step {step} there is nothing to tell apart: fewer than two groups have examples in the probe set."
    chance = (
        f"the baseline of chance is {percent(effect.baseline)} ({effect.examples} probe examples in {effect.groups} "
        "groups, shuffled)"
    )
    if not effect.found.any():
        return f"At step {step} no gate tells the groups apart beyond chance; {chance}."
    module = int(effect.share.argmax())
    column = pd.Series(values[:, module], index=table.index)
    name = one_line(modules.set_index("position")["short"].get(module, module), 40)
    return (
        f"At step {step} {int(effect.found.sum())} of {len(effect.found)} gates tell the groups apart beyond chance, "
        f"most at {name}: {one_line(column.idxmax(), 40)} {column.max():.3f}, {one_line(column.idxmin(), 40)} "
        f"{column.min():.3f} (1 is neutral); the groups explain {percent(effect.share[module])} of its variation, "
        f"{chance}."
    )


def groups(series: pd.DataFrame, name: str, *, low_is_good: bool = False) -> str:
    """Say which group does best and worst at the last evaluation; `series` holds step, group, value."""
    known = series.dropna(subset=["value"])
    if known.empty:
        return "No group has been evaluated yet."
    last = known[known["step"] == known["step"].max()]
    best, worst = last.loc[last["value"].idxmax()], last.loc[last["value"].idxmin()]
    if low_is_good:
        best, worst = worst, best
    return (
        f"At step {int(last['step'].iloc[0])} {one_line(name, 40)} is best on {one_line(best['group'], 40)} "
        f"({score(best['value'])}) and worst on {one_line(worst['group'], 40)} ({score(worst['value'])})."
    )


def probe(examples: pd.DataFrame) -> str:
    """Say how many probe examples are shown and how many the model gets wrong."""
    known = examples.dropna(subset=["loss"])
    if known.empty:
        return f"{len(examples)} examples, not yet evaluated."
    hardest = known.loc[known["loss"].idxmax()]
    return (
        f"{len(examples)} fixed held-out examples, mean loss {known['loss'].mean():.3f} nats; "
        f"the hardest costs {hardest['loss']:.2f}."
    )


def depth(lines: pd.DataFrame) -> str:
    """Say where the gates of the chosen examples differ most over depth; columns example, layer, gate."""
    spread = lines.groupby("layer")["gate"].agg(lambda values: values.max() - values.min())
    count = lines["example"].nunique()
    if count < 2:
        return (
            f"One example; its mean gate runs from {lines['gate'].min():.3f} to {lines['gate'].max():.3f} over depth."
        )
    return f"{count} examples; their mean gates differ most in layer {spread.idxmax()}, by {spread.max():.3f}."
