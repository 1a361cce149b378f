"""The guided tour: its stops, their words, and which run it is shown on, chosen by what the run recorded."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from dynlora.analysis.pairing import terms
from dynlora.analysis.run_summary import main_metric
from dynlora.analysis.stats import spearman
from dynlora.safe_files import NotPlainFileError, read_plain, write_text

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
        short: its title, a word or two.
        question: what it answers, the subtitle.
        words: the text, one paragraph per string.
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
            "A transformer is a stack of large weight matrices. LoRA freezes them and adds a small update to each: the "
            "product of two thin matrices. The rank is the number of components in this update. Each component costs "
            "parameters and can learn one more direction.",
            "Plain LoRA gives every module the same rank. Press play: one bar per module shows its rank while the "
            "model trains. All ranks together stay within one parameter budget.",
        ),
    ),
    Stop(
        "importance",
        "Importance",
        "What is importance?",
        (
            "Importance estimates how much the loss would change without a component. Training computes the gradient "
            "anyway, and the gradient gives this estimate to first order. The importance of a module is averaged over "
            "steps.",
            "The map shows the importance of every module (rows) at every step (columns). Strong colour: the loss "
            "depends on the update of this module. One step is noisy; a row that stays strong is not.",
        ),
    ),
    Stop(
        "moves",
        "Reallocation",
        "When does rank move?",
        (
            "At some steps the allocator compares modules: would a component reduce the loss more in another module? "
            "If so, it moves there, within a fixed parameter budget. The ticks above the map mark these steps.",
            "The line above the map shows the fraction of the budget in use. It never exceeds 100 %: when one module "
            "gains rank, other modules lose rank.",
        ),
    ),
    Stop(
        "flow",
        "Rank transfers",
        "Which modules gave rank to which?",
        (
            "The chart follows every parameter from its first module (left) to its last module (right). Strong bands "
            "moved between modules. Pale bands did not move.",
            "The totals on both sides match. If they did not, the caption would say so.",
        ),
    ),
    Stop(
        "gates",
        "Gates",
        "What do gates do?",
        (
            "Rank limits what a module can learn. A gate scales the update of a module for each input. 1 is neutral. "
            "Above 1 the update counts more for these inputs, below 1 less.",
            "Rows are input groups. The bars show how much of the variation of a gate the groups explain. The dashed "
            "line is the level that chance alone reaches. Only bars above it are a finding.",
            "Differing is not gaining. Where gates gained most, a factor that is blind to the input gained as much.",
        ),
    ),
    Stop(
        "worth",
        "Results",
        "Do dynamic ranks improve the result?",
        (
            "Moving ranks are not a result by themselves. The result is the quality on held-out examples, compared "
            "with plain LoRA at the same number of parameters, over several seeds.",
            "A line is the mean of runs that differ only in the seed. The band covers the lowest to the highest run. "
            "Under it is the difference with its 95 % interval. An interval that includes 0 decides nothing.",
            "Whether it helps depends on the task: test yours.",
            "Rank, importance and gates are the same for classification, regression and language models. Most methods "
            "learn all three tasks. Methods says which do not, and filters by task.",
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
    move; later a component is less important where there are more of them, and cause and effect would mix. Of two
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
    before = importance.loc[:, importance.columns.to_numpy() <= min(events)]
    correlation = spearman(won, before.mean(axis=1))
    return correlation if correlation >= LEAST_FOLLOWED else None


def alike(rows: Sequence[Mapping[str, Any]], run_id: str, at_most: int = 20) -> list[str]:
    """Return the ids of the runs that a run can be set against: same model, data, steps and budget, all evaluated.

    Args:
        rows: of the list of runs, as dicts.
        run_id: the run, which is always among those returned.
        at_most: of them.
    """
    own = next(row for row in rows if row["id"] == run_id)
    ids = [row["id"] for row in rows if terms(row) == terms(own) and main_metric(row)[1] is not None]
    return list(dict.fromkeys([run_id, *ids]))[:at_most]


def candidates(rows: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """Return the ids of the runs that may be toured, in the order in which they are tried.

    Samples come before own runs, so that the tour stays the same whatever is trained meanwhile. Runs that can be set
    against another method at their own terms come before the others: the last stop compares.

    Args:
        rows: finished runs of the list, as dicts.
    """
    runs: list[list[str]] = []
    for is_own in (False, True):
        runs += comparable_first([row for row in rows if bool(row["is_own"]) is is_own])
    return [ids for ids in runs if ids]


def comparable_first(rows: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """Return the ids of the runs that can be set against another method at their own terms, and those of the others.

    Args:
        rows: finished runs of the list, as dicts.
    """
    methods: dict[tuple[Any, ...], set[Any]] = {}
    for row in rows:
        if main_metric(row)[1] is not None:
            methods.setdefault(terms(row), set()).add(row["strategy"])
    comparable = [row["id"] for row in rows if len(methods.get(terms(row), ())) > 1]
    return [comparable, [row["id"] for row in rows if row["id"] not in set(comparable)]]


MARK_NAME = ".tour-taken"
_TEXT = "The tour of the dashboard was taken or hidden here. Delete this file to be offered it again.\n"


def is_tour_taken(runs_dir: str | os.PathLike[str]) -> bool:
    """Say whether the tour was taken or hidden in this runs folder; whatever cannot be read counts as not."""
    return read_plain(os.path.join(runs_dir, MARK_NAME), 1000) is not None


def mark_tour_taken(runs_dir: str | os.PathLike[str]) -> None:
    """Remember that the tour was taken or hidden.

    Raises:
        OSError: when the folder cannot be written to, or something else is in the place of the file.
    """
    path = Path(runs_dir) / MARK_NAME
    if is_tour_taken(runs_dir):
        return
    if os.path.lexists(path) and (path.is_symlink() or not path.is_file()):
        raise NotPlainFileError(f"{MARK_NAME} of the runs folder is not a plain file")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, _TEXT)
