"""The replay's frames, the map's orders, and how steady importance is."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from dynlora.analysis import capacity_frames
from dynlora.kinds.train.panels.replay import Look, frames
from dynlora.viz.kit import theme
from tests.analysis.test_flows import modules


def table(values: list[list[float]], steps: list[int]) -> pd.DataFrame:
    return pd.DataFrame(np.array(values, dtype=float), columns=steps)


def frames_to(step: int = 10) -> dict:
    ranks = table([[4, 3], [4, 5], [4, 4], [4, 0]], [0, 10])
    importance = table([[1, 2], [2, 8], [np.nan, 4], [0, 0]], [0, 10])
    shares = capacity_frames.step_shares(importance)
    return frames(modules(), ranks, shares, Look(step, 4, "layer.0.key", "a model", "1"), theme.LIGHT)


def test_frames_hold_ranks_and_shares_of_the_step_in_a_grid_ordered_as_the_map() -> None:
    replay = frames_to()
    by_kind = capacity_frames.ordered(modules(), "kind", np.full(4, 4.0))
    cells = {module["short"]: (module["row"], module["column"]) for module in replay["modules"]}
    assert cells == {"query 0": (0, 0), "key 0": (1, 0), "query 1": (0, 1), "key 1": (1, 1)}
    assert replay["kinds"] == list(dict.fromkeys(by_kind["group"]))
    assert replay["layers"] == list(dict.fromkeys(by_kind["side"]))
    order = [module["position"] for module in replay["modules"]]
    assert order == [0, 2, 1, 3]
    assert replay["rank"] == [[4, 4, 4, 4], [3, 4, 5, 0]]
    assert replay["share"] == [[33.33, None, 66.67, 0.0], [14.29, 28.57, 57.14, 0.0]]
    assert [module["marked"] for module in replay["modules"]] == [False, False, True, False]
    assert replay["ends"] == {"rank": 8.0, "importance": 100.0, "change": 4.0}
    assert json.loads(json.dumps(replay, allow_nan=False)) == replay


@pytest.mark.parametrize(("step", "frame"), [(0, 0), (9, 0), (10, 1), (99, 1)])
def test_the_chosen_step_is_shown_first(step: int, frame: int) -> None:
    assert frames_to(step=step)["frame"] == frame


def test_a_picture_without_importance_says_so() -> None:
    ranks = table([[4], [4], [4], [4]], [0])
    frame = frames(modules(), ranks, pd.DataFrame(), Look(0, None, None, "", "1"), theme.DARK)
    assert frame["share"] == [[None] * 4]
    assert frame["quantity"] == "rank"


def test_rows_by_kind_depth_and_rank() -> None:
    ranks = np.array([4.0, 2, 4, 6])
    by = {order: capacity_frames.ordered(modules(), order, ranks) for order in capacity_frames.ORDERS}
    assert by["kind"]["group"].tolist() == ["query", "query", "key", "key"]
    assert by["kind"]["side"].tolist() == ["0", "1", "0", "1"]
    assert by["depth"]["group"].tolist() == ["layer 0", "layer 0", "layer 1", "layer 1"]
    assert by["rank"]["short"].tolist() == ["key 1", "query 0", "query 1", "key 0"]
    assert by["rank"]["group"].tolist() == ["rank 6", "rank 4", "rank 4", "rank 2"]


def test_importance_that_keeps_its_order_is_steady_and_noise_is_not() -> None:
    same = table([[1, 2, 3], [2, 3, 4], [3, 4, 5], [4, 5, 6]], [5, 10, 15])
    steadiness = capacity_frames.steadiness(same, [5, 10, 15])
    assert steadiness["step"].tolist() == [10, 15]
    assert steadiness["value"].tolist() == pytest.approx([1.0, 1.0])
    noise = table([[1, 4], [2, 3], [3, 2], [4, 1]], [5, 10])
    assert capacity_frames.steadiness(noise, [5, 10])["value"].tolist() == pytest.approx([-1.0])
    assert capacity_frames.steadiness(noise, [5]).empty


def test_frames_outline_the_modules_that_need_rank_and_name_the_outline() -> None:
    ranks = table([[4, 3], [4, 5], [4, 4], [4, 0]], [0, 10])
    look = Look(0, 4, None, "a model", "1", ("layer.1.key", "elsewhere"))
    replay = frames(modules(), ranks, pd.DataFrame(), look, theme.LIGHT)
    assert [module["needed"] for module in replay["modules"]] == [False, False, False, True]
    assert (replay["outlined"], replay["colours"]["needed"]) == ("Needs rank", theme.LIGHT.needed)
    assert frames_to()["outlined"] == ""
