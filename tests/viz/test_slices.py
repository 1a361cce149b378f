"""Slices: every run of a search against each setting, the best marked, stopped runs kept apart."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dynlora.viz.compare.sweep_model import caption, figure, slices
from dynlora.viz.kit.theme import LIGHT


def row(
    run: str, lr: float, rank: int, loss: float | None, status: str = "finished", name: str = "same name"
) -> dict[str, Any]:
    return {
        "id": run,
        "name": name,
        "status": status,
        "strategy": "lora",
        "metrics": {} if loss is None else {"loss": loss},
        "config": {"train": {"lr": lr}, "adapter": {"rank": rank}, "strategy": {"name": "lora"}},
    }


ROWS = [
    row("a", 1e-4, 2, 0.9),
    row("b", 1e-3, 4, 0.5),
    row("c", 1e-2, 8, 0.3),
    row("d", 1e-1, 4, 0.2, "stopped"),
    row("e", 5e-3, 2, None, "failed"),
]


def test_every_run_with_a_result_is_in_every_panel() -> None:
    table = slices(ROWS, "loss")
    assert set(table["setting"]) == {"train.lr", "adapter.rank"}
    assert [len(part) for _, part in table.groupby("setting")] == [4, 4]
    assert set(table["run"]) == {"a", "b", "c", "d"}
    assert not table.loc[table["run"] == "d", "finished"].any()


def test_the_best_is_a_finished_run_and_is_marked_by_its_id_not_its_name() -> None:
    drawn = figure(slices(ROWS, "loss"), "loss", LIGHT, low_is_good=True)
    panels: Any = drawn.data
    assert len(panels) == 2
    for panel in panels:
        large = np.array(panel.marker.size) > 8
        assert large.sum() == 1
        assert panel.y[int(np.flatnonzero(large)[0])] == 0.3
        assert list(panel.marker.symbol).count("circle-open") == 1
    assert drawn.to_dict()["layout"]["xaxis"]["type"] == "log", "rates reach over decades"


def test_texts_stand_in_an_order_with_their_names() -> None:
    rows = [
        {**one, "config": {**one["config"], "model": {"name": name}}} for one, name in zip(ROWS, "xyzxy", strict=True)
    ]
    table = slices(rows, "loss")
    drawn = figure(table, "loss", LIGHT, low_is_good=True)
    axis = drawn.to_dict()["layout"][f"xaxis{list(dict.fromkeys(table['setting'])).index('model.name') + 1}"]
    assert list(axis["ticktext"]) == ["x", "y", "z"]


def test_the_caption_names_the_best_values_the_edge_and_the_luck() -> None:
    words = caption(slices(ROWS, "loss"), "loss", low_is_good=True)
    assert words.startswith("Best loss: 0.3")
    assert "rank at the edge of the tried range" in words
    assert "1 run stopped early" in words


@pytest.mark.parametrize("low", [True, False])
def test_without_a_finished_run_the_best_of_all_is_taken(low: bool) -> None:
    table = slices([{**one, "status": "stopped"} for one in ROWS], "loss")
    assert ("0.2" if low else "0.9") in caption(table, "loss", low_is_good=low).split(" at ")[0]
