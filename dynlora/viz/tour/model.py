"""The guided tour: its stops, their words, and which run it is shown on, chosen by what the run recorded."""

# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false, reportGeneralTypeIssues=false
# (pandas comes without types: a column is taken for a frame and a frame for a column)
from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from dynlora.viz.kit.run_summary import main_metric
from dynlora.viz.kit.stats import spearman

NEEDED = ("rank", "importance", "gate", "group_gate")
"""Signals that a run must have recorded for every stop to have its chart."""

LEAST_EVENTS = 3
"""Reallocations below which there is too little to see."""

LEAST_FOLLOWED = 0.2
"""Correlation of rank won and importance below which the tour's words would not be true of a run."""


@dataclass(frozen=True)
class Stop:
    """One stop of the tour.

    Attributes:
        key: its name in the address.
        short: a word or two for the list of stops.
        question: its title.
        words: the text, a paragraph each.
    """

    key: str
    short: str
    question: str
    words: tuple[str, ...]


STOPS = (
    Stop(
        "rank",
        "Rank",
        "What is rank?",
        (
            "A transformer is a stack of large tables of numbers. LoRA leaves them as they are and adds to each a "
            "small correction, the product of two thin tables. How thin is the rank: the number of components in the "
            "correction. Each one costs parameters and can learn one more direction.",
            "Plain LoRA gives every module the same rank. Press play: here the bars, one a module, change length "
            "while the model trains, and together they stay within one budget.",
        ),
    ),
    Stop(
        "importance",
        "Importance",
        "What is importance?",
        (
            "If a component were taken away, how much would the loss change? The gradient, which training computes "
            "anyway, answers that to first order. Averaged over steps this is a module's importance.",
            "The map shows it for every module (a row) at every step (from left to right). Strong colour is where the "
            "loss hangs on the correction. One step is noise; a row that stays strong is not.",
        ),
    ),
    Stop(
        "moves",
        "Moves",
        "When does rank move?",
        (
            "Now and then the allocator compares: does a component do more for the loss elsewhere? If so it moves, "
            "within a fixed budget of parameters. The ticks above the map are these events.",
            "The line above the map is the share of the budget in use. It never rises above 100 %: what one module "
            "wins, others have given.",
        ),
    ),
    Stop(
        "flow",
        "Who gave",
        "Who gave to whom?",
        (
            "Every parameter is followed from the module that held it first, on the left, to the one that holds it "
            "last, on the right. Strong bands changed hands, pale ones stayed where they were.",
            "Both sides add up. When they did not, the picture would say so.",
        ),
    ),
    Stop(
        "gates",
        "Gates",
        "What do gates do?",
        (
            "Rank decides how much a module can say; a gate decides how loudly, and it listens to the input. 1 is "
            "neutral, above it the correction is louder for these inputs, below quieter.",
            "Rows are groups of inputs. The bars above say how much of a gate's variation the groups explain; the "
            "dashed line is what chance alone reaches. Only bars above it are a finding.",
        ),
    ),
    Stop(
        "worth",
        "Worth it?",
        "Was it worth it?",
        (
            "A picture of moving rank is not a result. What counts is how good the model is on rows it has not seen, "
            "against plain LoRA with the same number of parameters, over several seeds.",
            "A line is the mean of runs that differ in their seed alone, the band runs from the lowest to the "
            "highest. Where bands overlap, nothing is decided: then more seeds or another task must decide.",
        ),
    ),
)
"""The stops, in order."""


def neighbours(key: str) -> tuple[Stop, Stop | None, Stop | None, int]:
    """Return the stop of a key (for an unknown one the first), the one before, the one after, and its number from 1."""
    place = next((i for i, stop in enumerate(STOPS) if stop.key == key), 0)
    before = STOPS[place - 1] if place else None
    after = STOPS[place + 1] if place + 1 < len(STOPS) else None
    return STOPS[place], before, after, place + 1


def merit(
    recorded: Sequence[str], events: Sequence[int], ranks: pd.DataFrame, importance: pd.DataFrame
) -> float | None:
    """Return how well a run can be toured, more is better: how far rank followed importance.

    That is Spearman's correlation over the modules between the rank each won and its mean importance until the first
    move; later a component is worth less where there are more of them, and cause could not be told from effect. Of two
    runs that moved as often this is what tells one that moved by merit from one that moved by chance.

    Args:
        recorded: names of the signals that the run recorded.
        events: steps of the reallocations that moved something.
        ranks: one row per module, one column per recorded step.
        importance: the same.

    Returns:
        None for a run that lacks a signal the tour shows, moved too little, or whose rank followed nothing.
    """
    if not set(NEEDED) <= set(recorded) or len(events) < LEAST_EVENTS or len(ranks) != len(importance):
        return None
    won = ranks.iloc[:, -1] - ranks.iloc[:, 0]
    before = importance.loc[:, importance.columns <= min(events)]
    found = spearman(won.reset_index(drop=True), before.mean(axis=1).reset_index(drop=True))
    return found if found >= LEAST_FOLLOWED else None


def alike(rows: Sequence[Mapping[str, Any]], run_id: str, at_most: int = 20) -> list[str]:
    """Return the ids of the runs that a run can be set against: same model, data, steps and budget, all evaluated.

    Args:
        rows: of the list of runs, as dicts.
        run_id: the run, which is always among those returned.
        at_most: of them.
    """
    own = next(row for row in rows if row["id"] == run_id)
    found = [row["id"] for row in rows if _terms(row) == _terms(own) and main_metric(row)[1] is not None]
    return list(dict.fromkeys([run_id, *found]))[:at_most]


def comparable_first(rows: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[str]]:
    """Return the ids of the runs that can be set against another method at their own terms, and those of the others.

    Args:
        rows: finished runs of the list, as dicts.
    """
    methods: dict[tuple[Any, ...], set[Any]] = {}
    for row in rows:
        if main_metric(row)[1] is not None:
            methods.setdefault(_terms(row), set()).add(row["strategy"])
    comparable = [row["id"] for row in rows if len(methods.get(_terms(row), ())) > 1]
    return comparable, [row["id"] for row in rows if row["id"] not in set(comparable)]


def _terms(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return row["model"], row["data"], row["max_steps"], (row["params"] or {}).get("budget"), row["is_own"]
