"""Searches of the decision log: the candidates that a method tried, round by round, and which it chose."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from dynlora.store.meta import is_number, section
from dynlora.viz.capacity.decision_log import edits_of

MOST_DRAWN = 2000
"""Candidates that are drawn at most."""

NO_LOSS = 1e30
"""From here on a loss stands for one that was no number."""

LARGEST = 1e39
"""Numbers from here on are not looked at: beyond any count, and beyond what a loss in float32 can be."""


@dataclass(frozen=True)
class Search:
    """A search as the decision log tells it.

    Attributes:
        step: after which it was made.
        tried: each candidate once, columns round (the first it was tried in), parameters, loss, pareto (no other has as
            low a loss with as few parameters, one of both better).
        failed: candidates whose loss is no number.
        limit: parameters that a candidate may use; None when it is not known.
        chosen: parameters and loss of the candidate that was chosen; None when the log does not say.
        searches: in the log; this is the last.
    """

    step: int
    tried: pd.DataFrame
    failed: int
    limit: float | None
    chosen: tuple[float, float] | None
    searches: int


def last_search(events: pd.DataFrame, config: Mapping[str, Any]) -> Search | None:
    """Return the last search among some events, None when there is none.

    A search is a `history` in an event or in one of its edits: a list of rounds, each with its number (`round`), its
    candidates (`population`, pairs of parameters and loss) and the best so far (`parameters`, `best_loss`). The limit
    is the event's budget, times the setting `strategy.limit` of methods that have one.

    Args:
        events: as `queries.events_frame` returns them.
        config: of the run.
    """
    found = [
        (int(step), history, payload.get("budget"))
        for step, payload in zip(events["step"], events["payload"], strict=True)
        if isinstance(payload, Mapping)
        for history in _histories(payload)
    ]
    if not found:
        return None
    step, history, budget = found[-1]
    rows = pd.DataFrame(list(_candidates(history)), columns=["round", "parameters", "loss"], dtype=float)
    once = rows.drop_duplicates(["parameters", "loss"])
    tried = once[once["loss"] < NO_LOSS].reset_index(drop=True)
    most, share = _number(budget), _number(section(config, "strategy").get("limit"))
    parameters, loss = (_number(history[-1].get(key)) for key in ("parameters", "best_loss"))
    return Search(
        step,
        tried.assign(pareto=pareto(tried)),
        len(once) - len(tried),
        None if most is None else float(int(most * (1 if share is None else share))),
        None if parameters is None or loss is None or loss >= NO_LOSS else (parameters, loss),
        len(found),
    )


def _histories(payload: Mapping[str, Any]) -> Iterator[list[Mapping[str, Any]]]:
    """Yield each history of candidates that an event holds; a store is not trusted, so what is no round is left out."""
    for holder in (payload, *edits_of(payload)):
        history = holder.get("history")
        rounds = [entry for entry in history if isinstance(entry, Mapping)] if isinstance(history, list) else []
        if next(_candidates(rounds), None) is not None:
            yield rounds


def _candidates(history: list[Mapping[str, Any]]) -> Iterator[tuple[float, float, float]]:
    """Yield round, parameters and loss of each candidate."""
    for place, entry in enumerate(history):
        number, population = _number(entry.get("round")), entry.get("population")
        for one in population if isinstance(population, list) else []:
            parameters, loss = map(_number, one) if isinstance(one, list) and len(one) == 2 else (None, None)
            if parameters is not None and loss is not None:
                yield float(place) if number is None else number, parameters, loss


def _number(value: Any) -> float | None:
    """Return a number from the log, None for anything else, what counts nothing in this world included."""
    return float(value) if is_number(value) and abs(value) < LARGEST else None


def pareto(tried: pd.DataFrame) -> np.ndarray:
    """Return which candidates no other beats: as low a loss with as few parameters, one of both better."""
    order = tried.sort_values(["parameters", "loss"], kind="stable")
    lowest = order["loss"].cummin().shift(fill_value=np.inf)
    return (order["loss"] < lowest).reindex(tried.index).to_numpy(bool)


def drawn(tried: pd.DataFrame) -> pd.DataFrame:
    """Return the candidates that are drawn: the Pareto set, and of many others each so many-th."""
    others = np.flatnonzero(~tried["pareto"].to_numpy(bool))
    if len(tried) <= MOST_DRAWN:
        return tried
    kept = others[np.unique(np.linspace(0, len(others) - 1, MOST_DRAWN).astype(int))]
    return tried.iloc[np.union1d(kept, np.flatnonzero(tried["pareto"].to_numpy(bool)))]


def table(found: Search) -> pd.DataFrame:
    """Return the candidates as people read them, those with the lowest loss first."""
    rows = found.tried.sort_values(["loss", "parameters"], kind="stable").reset_index(drop=True)
    chosen = [(row.parameters, row.loss) == found.chosen for row in rows.itertuples()]
    return rows.rename(columns={"pareto": "in the Pareto set"}).assign(chosen=chosen)


def loss_title(summary: Mapping[str, Any]) -> str:
    """Return what a candidate's loss is called, with its unit where that is known: classifiers lose nats."""
    return "Loss of the candidate (nats)" if summary.get("labels") else "Loss of the candidate"
