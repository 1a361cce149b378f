"""Searches: candidates read from a log that is not trusted, the Pareto set, the choice, the limit, and the words."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynlora.kinds.train.panels import decisions
from dynlora.kinds.train.panels.decisions import Search
from dynlora.viz.kit import theme
from tests.viz.drawn import traces_of

HISTORY = [
    {"round": 0, "best_loss": 0.7, "parameters": 90, "population": [[100, 0.8], [90, 0.7], [40, 3.4e38]]},
    {"round": 1, "best_loss": 0.5, "parameters": 80, "population": [[90, 0.7], [50, 0.75], [80, 0.5], [50, 0.9]]},
]


def log(*payloads: dict[str, Any]) -> pd.DataFrame:
    """Return an event a step, from step 10 on."""
    return pd.DataFrame({"step": [10 + i for i in range(len(payloads))], "payload": list(payloads)})


def search_of(*payloads: dict[str, Any], config: Any = None) -> Search:
    """Return the search of a log that has one."""
    search = decisions.last_search(log(*payloads), config or {})
    assert search is not None
    return search


def paths(history: Any) -> dict[str, Any]:
    """Return the event of a search as the engine records it."""
    return {"budget": 100, "budget_used": 80, "edits": [{"edit": "paths", "paths": ["n"], "history": history}]}


def test_each_candidate_counts_once_in_the_round_it_was_first_tried() -> None:
    search = search_of(paths(HISTORY))
    assert search.tried[["round", "parameters", "loss"]].to_numpy().tolist() == [
        [0, 100, 0.8],
        [0, 90, 0.7],
        [1, 50, 0.75],
        [1, 80, 0.5],
        [1, 50, 0.9],
    ]
    assert search.tried["pareto"].tolist() == [False, False, True, True, False]
    assert (search.step, search.failed, search.limit, search.chosen) == (10, 1, 100, (80, 0.5))
    table = decisions.table(search)
    assert table["loss"].tolist() == [0.5, 0.7, 0.75, 0.8, 0.9]
    assert table["chosen"].tolist() == [True, False, False, False, False]


def test_the_last_search_counts_and_a_method_may_set_a_lower_limit() -> None:
    search = search_of(
        {"budget": 100, "history": HISTORY}, paths(HISTORY[:1]), {"edits": []}, config={"strategy": {"limit": 0.55}}
    )
    assert (search.step, search.searches, search.limit, search.chosen) == (11, 2, 55, (90, 0.7))
    assert decisions.last_search(log({"edits": [{"edit": "move"}]}), {}) is None
    assert decisions.last_search(log(), {}) is None


@pytest.mark.parametrize(
    "history",
    [
        None,
        3,
        "x",
        [],
        [3],
        [{}],
        [{"population": 3}],
        [{"population": [3, [1], [1, 2, 3], ["a", 1], [None, 1]]}],
        [{"population": [[True, 1.0], [10**400, 1.0], [1, float("nan")], [float("inf"), 1.0]]}],
    ],
)
def test_what_is_no_history_is_left_out(history: Any) -> None:
    assert decisions.last_search(log(paths(history), {"history": history}), {}) is None


def test_what_the_log_does_not_say_is_not_drawn() -> None:
    history = [{"round": "x", "population": [[1, 0.5], [2, 0.4]], "best_loss": float("nan"), "parameters": 10**400}]
    search = search_of({"history": history, "budget": 10**400}, config={"strategy": {"limit": "x"}})
    assert (search.limit, search.chosen, search.tried["round"].tolist()) == (None, None, [0, 0])
    figure = decisions.search_scatter(search, theme.DARK)
    assert [trace.name for trace in traces_of(figure)] == ["Pareto set", "Candidate"]


def test_the_figure_shows_candidates_limit_and_choice() -> None:
    search = search_of(paths(HISTORY))
    figure = decisions.search_scatter(search, theme.LIGHT)
    traces = {trace.name: trace for trace in traces_of(figure)}
    assert list(traces["Pareto set"].x) == [50, 80]
    assert list(traces["Candidate"].marker.color) == [0, 0, 1, 1, 1]
    assert list(traces["Limit"].x) == [100, 100]
    assert (list(traces["Chosen"].x), list(traces["Chosen"].y)) == ([80], [0.5])


def test_of_very_many_candidates_the_pareto_set_is_always_drawn() -> None:
    draw = np.random.default_rng(0)
    history = [{"round": i, "population": draw.random((1000, 2)).tolist()} for i in range(10)]
    search = search_of(paths(history))
    trials = decisions.drawn(search.tried)
    assert decisions.MOST_DRAWN <= len(trials) <= decisions.MOST_DRAWN + search.tried["pareto"].sum()
    assert trials["pareto"].sum() == search.tried["pareto"].sum() > 0


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=30, unique=True))
def test_the_pareto_set_by_definition(points: list[tuple[int, int]]) -> None:
    frame = pd.DataFrame(points, columns=["parameters", "loss"], dtype=float)
    wanted = [
        not any(p <= parameters and q <= loss and (p, q) != (parameters, loss) for p, q in points)
        for parameters, loss in points
    ]
    assert decisions.pareto(frame).tolist() == wanted


def test_the_decision_is_listed_without_its_candidates() -> None:
    modules = pd.DataFrame({"position": [0], "short": ["query 0"]})
    listed = decisions.decisions(log(paths(HISTORY)), modules)
    assert listed["detail"].tolist() == ["paths n"]
    assert "population" not in json.dumps(listed.to_dict("list"))


def test_what_a_search_says() -> None:
    words = decisions.search_caption(search_of(paths(HISTORY), paths(HISTORY)))
    assert words == (
        "The search after step 11 tried 5 candidates in 2 rounds and chose one with 80 parameters, 80.0 % of the limit "
        "of 100 and a loss of 0.500. The best loss of the first round was 0.700. The Pareto set has 2 "
        "candidates: no other candidate "
        "has as low a loss with as few parameters. 1 more had no finite loss. This is the last "
        "of 2 searches."
    )
    none = search_of(paths([{"round": 0, "population": [[1, 3.4e38]]}]))
    assert decisions.search_caption(none) == "No candidate of the search after step 10 has a finite loss."
    assert none.loss_title == "Loss of the candidate"
    assert replace(none, has_classes=True).loss_title.endswith("(nats)")
