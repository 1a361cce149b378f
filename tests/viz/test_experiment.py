"""An experiment is a sweep of methods, ranks and seeds; its time and its progress are counted from what is known."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from dynlora.cli.sweep import combinations
from dynlora.errors import ConfigError
from dynlora.jobs.sweep import SECTION, section_choices
from dynlora.viz.compare import cards as live_cards
from dynlora.viz.launch import form_model
from dynlora.viz.launch.form_model import Experiment
from tests.pages.app import CATALOG

STRATEGIES = {row["name"]: row for row in CATALOG["strategies"]}


def row(**given: Any) -> dict[str, Any]:
    usual = {
        "id": "a",
        "status": "finished",
        "step": 40,
        "max_steps": 40,
        "time": {"train_s": 20.0},
        "is_own": True,
        "config": {"train": {"steps": 40, "batch_size": 16}},
    }
    return usual | given


def test_a_method_takes_the_start_for_its_own_fields_and_its_control_moves_at_random() -> None:
    start = {"strategy.name": "dynamic", "strategy.moves": 5, "strategy.warmup_steps": 3}
    methods = form_model.methods(STRATEGIES, start)
    assert methods == {
        "dynamic": {"name": "dynamic", "moves": 5},
        "random control of dynamic": {"name": "dynamic", "moves": 5, "allocation": "random"},
        "lora": {"name": "lora"},
    }
    from_control = form_model.methods(STRATEGIES, start | {"strategy.allocation": "random"})
    assert from_control == methods, "a control as the start makes no control of the method itself"


def test_the_file_of_an_experiment_is_the_same_sweep() -> None:
    methods = form_model.methods(STRATEGIES, {})
    experiment = Experiment(list(methods.values()), [2, 4], [0, 1])
    base = form_model.base({"name": "mine", "train.steps": 9, "seed": 7, "strategy.name": "lora", "adapter.rank": 8})
    assert base == {"name": "mine", "train": {"steps": 9}}
    document = yaml.safe_load(form_model.document(base, experiment))
    choices = section_choices(document.pop(SECTION))
    configs = combinations(document, choices, None)
    assert len(configs) == experiment.n == 12
    assert [(one.seed, one.adapter.rank) for one in configs[:4]] == [(0, 2), (0, 2), (0, 2), (0, 4)]
    assert {one.strategy.name for one in configs[:3]} == {"lora", "dynamic"}
    assert configs[0].name == "mine, lora, rank 2, seed 0"
    assert configs[2].name == "mine, dynamic allocation random, rank 2, seed 0"
    assert combinations(base, section_choices(experiment.lists), None) == configs, (
        "what the button sends is what the file says"
    )
    first = form_model.configured(base, experiment, experiment.methods[0])
    assert (first["seed"], first["adapter"], first["strategy"]) == (0, {"rank": 2}, {"name": "lora"})


@pytest.mark.parametrize("text", ["", "0", "x", "4,,x", "-4", "1,2,3,4,5,6,7,8,9", "99999999"])
def test_ranks_that_are_none_are_refused_with_the_rule(text: str) -> None:
    with pytest.raises(ConfigError, match=r"rank.*such as 4 or 2, 4, 8"):
        form_model.ranks(text)


@given(st.lists(st.integers(1, 64), min_size=1, max_size=8))
def test_ranks_are_sorted_and_each_stands_once(given_ranks: list[int]) -> None:
    assert form_model.ranks(", ".join(map(str, given_ranks))) == sorted(set(given_ranks))


def test_an_experiment_without_a_method_or_with_too_many_runs_is_refused() -> None:
    with pytest.raises(ConfigError, match="methods: none is chosen; choose one or more"):
        form_model.checked(Experiment([], [4], [0]))
    with pytest.raises(ConfigError, match="320 combinations are more than 200"):
        form_model.checked(Experiment([{"name": "lora"}, {"name": "dynamic"}], list(range(1, 9)), list(range(20))))


def test_the_time_comes_from_finished_runs_of_the_same_pace() -> None:
    config = {"train": {"steps": 100, "batch_size": 16}}
    others = [
        row(time={"train_s": 400.0}, config={"train": {"batch_size": 64}}),
        row(status="stopped", time={"train_s": 4.0}),
        row(time=None),
        row(is_own=False, time={"train_s": 4000.0}),
        row(time={"train_s": float("nan")}),
    ]
    assert form_model.seconds_per_run(pd.DataFrame([row(), *others]), config) == pytest.approx(50)
    assert form_model.seconds_per_run(pd.DataFrame(others), config) is None
    assert form_model.seconds_per_run(pd.DataFrame([]), config) is None
    experiment = Experiment([{"name": "lora"}, {"name": "dynamic"}], [4], [0, 1, 2])
    assert form_model.caption(experiment, 300, 0, 0).startswith("2 methods × 3 seeds = 6 runs. About 5 min in total")
    assert "not known" in form_model.caption(experiment, None, 0, 0)
    assert "1 run is training" in form_model.caption(experiment, 50, 1, 0)


def test_progress_counts_what_is_done_and_what_is_left() -> None:
    rows = [row(), row(status="running", step=10), row(status="queued", step=0), row(status="failed", step=3)]
    counts = live_cards.counted(rows)
    assert (counts.n, counts.finished, counts.active, counts.queued) == (4, 1, 2, 1)
    assert counts.share == pytest.approx((40 + 10 + 0 + 40) / 160)
    assert counts.seconds_left == pytest.approx(0.5 * 70)
    assert live_cards.progress_text(counts) == (
        "1 of 4 runs finished, 1 training, 1 in the queue, 1 ended early. About 35 s remaining."
    )
    assert "remaining" not in live_cards.progress_text(live_cards.counted([row(status="queued", step=0, time=None)]))


def test_the_time_that_is_left_is_that_of_this_machine() -> None:
    sample = row(id="sample", is_own=False)
    running = row(id="now", status="running", step=10, time=None)
    waiting = row(id="next", status="queued", step=0, time=None)
    assert live_cards.counted([sample, running]).seconds_left is None, "the samples were trained elsewhere"
    assert live_cards.counted([sample, running], {"now": 300.0}).seconds_left == pytest.approx(300)
    assert live_cards.counted([sample, running, waiting], {"now": 300.0}).seconds_left == pytest.approx(300 + 40 * 10)
    own = row(id="own", time={"train_s": 20.0, "evaluated_s": 20.0})
    assert live_cards.counted([own, running, waiting], {"now": 300.0}).seconds_left == pytest.approx(300 + 40)
