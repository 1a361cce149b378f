"""The first sentence of each page: computed, with its n, undefined where it is, and ties as ties."""

from __future__ import annotations

import numpy as np
import pandas as pd

from dynlora.analysis import capacity_frames
from dynlora.kinds.train.panels.inputs import GroupSeries, GroupsOverSteps
from dynlora.viz import capacity
from dynlora.viz.runs import cards
from tests.viz.listed import listed, swept_rows


def test_one_group_is_not_compared_with_itself_nor_the_step_that_has_no_number() -> None:
    series = pd.DataFrame({"step": [10, 20, 30], "group": ["short"] * 3, "value": [0.5, 0.75, None], "n": [40] * 3})
    assert GroupsOverSteps().caption(GroupSeries(series, "accuracy", "")) == (
        "Accuracy is 0.750 for the one group. Measured at step 20. Set data.group_by to compare groups."
    )
    none = GroupSeries(series.assign(value=float("nan")), "accuracy", "")
    assert GroupsOverSteps().caption(none) == "No group has been evaluated yet."


def state(ranks: list[int], importance: list[float]) -> pd.DataFrame:
    frame = pd.DataFrame({"label": ["query", "query", "value", "value"], "position": range(4), "rank": ranks})
    shares = pd.DataFrame({"importance_share": importance, "rank_share": ranks}, dtype=float)
    return frame.join(shares)


def traced(*rows: tuple[int, int, float]) -> pd.DataFrame:
    return pd.DataFrame(list(rows), columns=["origin", "holder", "parameters"])


def test_capacity_says_how_much_moved_and_between_which_kinds() -> None:
    caption = capacity.capacity_text(
        state([2, 3, 5, 6], [1, 2, 3, 4]),
        np.full(4, 4.0),
        traced((0, 0, 60.0), (0, 2, 30.0), (1, -1, 10.0)),
        capacity_frames.Balance(100, 90, 0, 10, 0),
        0,
        40,
        2,
    )
    assert caption == "Rank moved from query to value: 33.3 % of the adapter in 2 reallocations, steps 0 to 40."


def test_capacity_that_was_cut_alone_says_how_much_went_and_what_is_left() -> None:
    sides = capacity_frames.Balance(400, 100, 0, 300, 0)
    caption = capacity.capacity_text(
        state([1, 2, 3, 4], [1, 2, 3, 4]), np.full(4, 10.0), traced((0, 0, 100.0), (1, -1, 300.0)), sides, 0, 40, 3
    )
    assert caption == (
        "Rank is highest in value, lowest in query. By step 40, 3 reallocations removed 75.0 % of the adapter."
    )


def test_capacity_that_did_not_move_says_which_ranks_there_are() -> None:
    still = capacity_frames.Balance(100, 100, 0, 0, 0)
    caption = capacity.capacity_text(state([4] * 4, [1] * 4), np.full(4, 4.0), traced(), still, 0, 9, 0)
    assert caption == "By step 9, no rank moved: 4 modules with rank 4."
    even = capacity.capacity_text(
        state([3, 5, 5, 3], [np.nan] * 4), np.full(4, 4.0), traced((0, 1, 8.0)), still, 0, 9, 1
    )
    assert "Rank moved within each kind of module: " in even


def test_the_list_of_runs_says_what_was_reached_and_names_no_winner() -> None:
    results = cards.task_results([*swept_rows(), listed(90, data="other", accuracy=0.99)])
    assert results is not None
    assert (len(results.runs), len(results.means)) == (36, 12)
    assert cards.sentence(results) == (
        "On sst2 with minilm, 40 steps, 12 configurations have mean accuracy from 0.740 to 0.830 (36 runs)."
    )


def test_equal_means_are_said_once_and_one_configuration_has_its_name() -> None:
    results = cards.task_results([listed(1), listed(2, strategy="lora")])
    assert results is not None
    assert "2 configurations all have mean accuracy 0.800 (2 runs)" in cards.sentence(results)
    alone = cards.task_results([listed(1)])
    assert alone is not None
    assert cards.sentence(alone) == "On sst2 with minilm, 40 steps, dynamic reaches accuracy 0.800 (n = 1)."
    assert cards.task_results([listed(1, accuracy=None)]) is None
    assert cards.standing(["finished", "running", "finished"]) == "3 runs: 2 finished and 1 running."
