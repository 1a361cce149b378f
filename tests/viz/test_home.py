"""What the first page says of the list of runs."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest

from dynlora.analysis.frames import records
from dynlora.viz import home as home_model

NOW = 1_000_000.0


def listed(*rows: dict[str, Any]) -> pd.DataFrame:
    """Return a list of runs; what a row does not say is usual."""
    usual = {
        "status": "finished",
        "is_own": True,
        "step": 9,
        "max_steps": 10,
        "created": NOW,
        "name": "a",
        "strategy": "lora",
        "metrics": {"accuracy": 0.5},
        "metric": "accuracy",
        "config": {},
    }
    return pd.DataFrame([{**usual, "id": str(place), **row} for place, row in enumerate(rows)])


def test_running_runs_come_before_queued_ones_and_the_newest_first() -> None:
    runs = listed(
        {"status": "queued", "created": NOW},
        {"status": "running", "created": NOW - 9},
        {"status": "stopping", "created": NOW - 5},
        {},
    )
    assert [row["id"] for row in home_model.active(runs)] == ["2", "1", "0"]


def test_only_a_run_that_made_a_step_is_shown_as_it_trains() -> None:
    assert home_model.live_run(listed({"status": "running", "step": 0}, {"status": "queued"}, {})) is None
    assert home_model.live_run(listed({"status": "running", "step": 0}, {"status": "running", "created": 1.0})) == "1"


def test_recent_runs_are_own_ones_that_ended() -> None:
    runs = listed(
        {"is_own": False},
        {"status": "running"},
        {"status": "corrupt"},
        {"status": "failed", "created": 5.0},
        *({"created": NOW - place} for place in range(9)),
    )
    recent = home_model.recent(runs)
    assert [row["id"] for row in recent] == ["4", "5", "6", "7", "8"]
    assert [row["id"] for row in home_model.recent(listed({"status": "failed"}))] == ["0"]


@pytest.mark.parametrize(
    ("ago", "words"),
    [
        (725, "created 12 min ago"),
        (90_000, "created 1 day ago"),
    ],
)
def test_a_result_is_said_with_its_age(ago: float, words: str) -> None:
    (row,) = records(listed({"created": NOW - ago}))
    assert home_model.result_words(row, NOW) == f"finished, accuracy 0.500, {words}"


@pytest.mark.parametrize("created", [None, float("nan"), -5.0, NOW + 5, "x"])
def test_a_time_that_cannot_be_is_left_out(created: Any) -> None:
    row = {**records(listed({}))[0], "created": created, "metrics": {}, "status": "failed"}
    assert home_model.result_words(row, NOW) == "failed"


def test_the_names_of_the_lists_values_tell_an_old_link() -> None:
    assert home_model.is_link_to_list(["q"])
    assert home_model.is_link_to_list(["run", "sort"])
    assert not home_model.is_link_to_list(["run", "step"])
    assert not home_model.is_link_to_list([])
