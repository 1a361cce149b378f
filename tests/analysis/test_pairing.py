"""Groups of runs that differ in their seed, their lines over a common axis, and pairs of runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from dynlora.analysis import pairing, seed_groups, stats
from dynlora.analysis.seed_groups import Group
from dynlora.store import queries
from tests.summaries import summaries_of, summary_with


def summary(run: str, seed: int = 0, strategy: str = "dynamic", **settings: Any) -> dict[str, Any]:
    config = {
        "name": run,
        "seed": seed,
        "strategy": {"name": strategy, **settings},
        "data": {"name": "d"},
        "train": {"batch_size": 32, "grad_accum": 2},
    }
    return {
        "id": run,
        "name": run,
        "seed": seed,
        "strategy": strategy,
        "fidelity": "code",
        "config": config,
        "step": 10,
        "data": "d",
        "data_size": {"train": 10, "held_out": 5},
        "labels": ["a", "b"],
        "ranks": {},
        "metrics": {"accuracy": 0.8 + 0.01 * seed},
        "params": {"active": 100, "gate": 4},
    }


def series(run: str, steps: list[int], values: list[float]) -> pd.DataFrame:
    return pd.DataFrame({"run": run, "step": steps, "x": np.array(steps, float), "value": values})


def test_runs_that_differ_in_seed_and_name_are_one_group() -> None:
    runs = [summary("a"), summary("b", 1), summary("c", 0, allocation="random"), summary("d", 0, "lora")]
    groups = seed_groups.grouped(runs)
    assert [group.runs for group in groups] == [("a", "b"), ("c",), ("d",)]
    assert [group.title for group in groups] == [
        "dynamic, n = 2",
        "dynamic, allocation random, n = 1",
        "lora, n = 1",
    ]


def test_values_between_steps_only_where_asked_and_never_beyond_a_runs_end() -> None:
    both = pd.concat([series("a", [0, 10, 20], [0.0, 1.0, 2.0]), series("b", [0, 5, 10], [0.0, 0.5, 1.0])])
    groups = [Group("g", ("a", "b"))]
    assert seed_groups.bands(both, groups, between=True)["n"].tolist() == [2, 2, 2, 1]
    assert seed_groups.bands(both, groups, between=False)["n"].tolist() == [2, 1, 2, 1]
    long = pd.concat([series("a", list(range(5000)), [0.0] * 5000)])
    assert len(seed_groups.bands(long, groups, between=True)) <= seed_groups.GRID


@pytest.mark.parametrize(
    ("kind", "wanted"),
    [("step", 5.0), ("rows", 320.0), ("seconds", 0.5), ("tokens", 500.0), ("parameter-steps", 550.0)],
)
def test_what_the_axis_counts_at_step_five(kind: str, wanted: float) -> None:
    times = pd.DataFrame({"step": range(1, 11), "value": 100.0})
    line = pd.DataFrame({"step": [2, 10], "parameters": [100.0, 125.0]})
    clock = seed_groups.clock(kind, summary_with(summary("a")), times, line)
    runs = seed_groups.placed(series("a", [5], [1.0]).drop(columns="x"), {"a": clock})
    counted = {"parameter-steps": 200 + 3 * 125.0}.get(kind, wanted)
    assert runs["x"].tolist() == pytest.approx([counted])


def test_pairs_share_seed_data_and_sizes() -> None:
    runs = {run["id"]: run for run in (summary("a0"), summary("a1", 1), summary("b0"), summary("b1", 1))}
    first, second = Group("a", ("a0", "a1")), Group("b", ("b0", "b1"))
    assert pairing.pairs(summaries_of(runs.values()), first, second) == ([(0, "a0", "b0"), (1, "a1", "b1")], "")
    runs["b1"]["data_size"] = {"train": 9, "held_out": 5}
    kept, why = pairing.pairs(summaries_of(runs.values()), first, second)
    assert (len(kept), why) == (1, "1 of 2 shared seeds have different data or data sizes.")
    runs["b0"]["seed"] = runs["b1"]["seed"] = 7
    assert pairing.pairs(summaries_of(runs.values()), first, second) == ([], "The two groups share no seed.")


def test_a_seed_with_other_or_unknown_examples_is_left_out() -> None:
    assert list(pairing.same_length({0: np.ones(3), 1: np.ones(2), 2: np.array([1, np.nan, 1])})) == [0]


def test_a_difference_is_significant_only_where_the_seeds_agree_and_there_are_enough() -> None:
    examples = np.linspace(-0.01, 0.01, 50)
    alike = [0.1 + examples, 0.11 + examples, 0.09 + examples]
    apart = [0.02 + examples, 0.3 + examples, 0.05 + examples]
    assert pairing.is_significant(alike, stats.paired_difference(alike))
    assert not pairing.is_significant(alike, stats.paired_difference(alike), 0.9999)
    assert not pairing.is_significant(alike[:2], stats.paired_difference(alike[:2]))
    difference = stats.paired_difference(apart)
    assert difference.excludes_0
    assert not pairing.is_significant(apart, difference), "t over three seeds is wider than the bootstrap"


@pytest.mark.parametrize(("facts", "unit"), [({}, "nats"), ({"loss_unit": "squared error"}, "squared error")])
def test_a_difference_of_losses_has_the_unit_of_the_task(facts: dict[str, Any], unit: str) -> None:
    runs = {run: {**summary(run), "task_facts": facts} for run in ("a", "b")}
    folders = {run: Path(run) for run in runs}

    def ask(query: object, *_: object) -> pd.DataFrame:
        if query is queries.examples_frame:
            return pd.DataFrame(columns=["text", "text_pair", "label"])
        raise KeyError(query)

    loss, *_ = pairing.RunPairs(folders, summaries_of(runs.values()), ask).differences([(0, "a", "b")])
    assert loss.what.startswith(f"{unit} of loss on ")
    assert f"({unit}; left is better)" in loss.title
