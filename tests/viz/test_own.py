"""What a method records beside the usual: named by the run, drawn by generic parts, harmless when the run lies."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from dynlora.analysis import capacity_frames, frames, run_reading, run_summary
from dynlora.kinds.train.panels import capacity, decisions
from dynlora.kinds.train.panels.capacity import capacity_map
from dynlora.viz.kit import theme
from dynlora.viz.kit.module_map import MapView
from tests.summaries import summary_with

OWN = {
    "group": {"title": "sharing groups", "question": "Which layers share", "choices": [], "grouping": True},
    "path": {"title": "path", "question": "Which path", "choices": ["none", "low rank"], "grouping": False},
}


def modules() -> pd.DataFrame:
    """Return two layers of two kinds."""
    rows = [(f"layer.{i}.{kind}", i, kind, 4, 4, 2) for i in range(2) for kind in ("query", "value")]
    return frames.described(pd.DataFrame(rows, columns=["name", "layer", "kind", "d_in", "d_out", "max_rank"]))


def drawn(values: list[list[float]], view: MapView) -> Any:
    """Return the heat map of values, one row a module and one column a step."""
    frame = pd.DataFrame(values, columns=[0, 5])
    rows = capacity_frames.ordered(modules(), "kind", np.ones(4))
    budget = pd.DataFrame({"step": [0, 5], "parameters": [1, 1], "share": [1.0, 1.0]})
    return capacity_map(frame, np.array([0, 1]), rows, budget, view, theme.LIGHT).data[0]


def test_a_methods_own_signals_come_after_the_usual_ones() -> None:
    signals = run_reading.known(summary_with({"own_signals": OWN}), ["rank", "importance", "group", "path", "unheard"])
    assert list(signals) == ["rank", "importance", "group", "path"]
    assert signals["group"].grouping
    assert signals["path"].choices == ("none", "low rank")
    assert signals["path"].word == "path"


@pytest.mark.parametrize(
    "own_signals",
    [None, [], {"group": 3}, {"group": {"title": 3}}, {"rank": OWN["group"]}, {"group": {"title": None}}],
)
def test_what_a_run_says_wrongly_is_left_out(own_signals: object) -> None:
    signals = run_reading.known(
        summary_with({"own_signals": own_signals if isinstance(own_signals, dict) else {}}), ["rank", "group"]
    )
    assert list(signals) == ["rank"]
    assert signals["rank"].word == "rank"


def test_choices_are_colours_with_names_and_not_a_scale() -> None:
    heat = drawn([[0, 1], [1, 1], [0, 0], [1, 0]], MapView("path", choices=("none", "low rank")))
    assert heat["zmin"] == -0.5
    assert heat["zmax"] == 1.5
    assert list(heat["colorbar"]["ticktext"]) == ["none", "low rank"]
    assert heat["colorscale"][0][1] == theme.LIGHT.sunken


def test_groups_are_renumbered_so_that_neighbours_tell_apart() -> None:
    heat = drawn([[0, 0], [1, 1], [2, 0], [3, 1]], MapView("groups", grouping=True))
    z = np.array(heat["z"], float)
    z = z[~np.isnan(z).all(1)]
    assert (z[:, 0] == 0).all(), "at first every module stands alone"
    assert z[:, 1].tolist() == [1, 1, 2, 2], "rows by kind: query of both layers, then value of both"
    assert list(heat["colorbar"]["ticktext"]) == ["alone"]


def test_decisions_beside_moves_are_listed_in_words() -> None:
    payloads = [
        {"edits": [{"edit": "move", "donor": 0, "receiver": 1}, {"edit": "tie", "modules": [0, 2], "distance": 0.25}]},
        {"edits": "nonsense"},
        {"edits": [{"edit": "<b>copy</b>", "module": 3, "from": [1, 2]}, 7]},
    ]
    rows = decisions.decisions(pd.DataFrame({"step": [4, 5, 6], "payload": payloads}), modules())
    assert rows["step"].tolist() == [4, 6]
    assert rows.iloc[0].tolist()[1:] == ["tie", "query 0, query 1", "distance 0.25"]
    assert rows.iloc[1]["modules"] == "value 1"
    assert decisions.summary(rows).startswith("2 decisions at 2 steps: 1 × tie")


def test_the_methods_own_numbers_are_told_from_those_of_every_run() -> None:
    names = ["loss", "lr", "threshold", "penalty/norm", "adapter_parameters", "optimizer_bytes", "threshold"]
    frame = pd.DataFrame({"name": names, "split": "train", "step": 1, "value": 1.0})
    assert run_summary.own_numbers(frame) == ["penalty/norm", "threshold"]


def test_the_budget_line_prefers_what_was_counted() -> None:
    series = pd.DataFrame({"step": [0, 5, 9], "value": [10.0, 12.0, 12.0]})
    line = frames.recorded_line(series, 24, 1, 8)
    assert line.to_dict("list") == {"step": [5], "parameters": [12.0], "share": [0.5]}
    assert np.isnan(frames.recorded_line(series, None, None, None)["share"].to_numpy(float)).all()


def test_sentences_count_groups_and_choices() -> None:
    assert capacity.groups_at(np.array([0, 1, 0, 1.0]), 5) == (
        "At step 5, 4 modules form 2 groups. The largest group has 2 modules. Neighbouring rows of one colour "
        "are one group."
    )
    assert capacity.groups_at(np.arange(3.0), 0).endswith("3 groups of one module each.")
    assert capacity.choices_at(np.array([0, 1, 1, np.nan]), ("none", "low rank"), 3) == (
        "At step 3: 2 low rank and 1 none."
    )
    assert "No choice" in capacity.choices_at(np.full(2, np.nan), ("a",), 3)
