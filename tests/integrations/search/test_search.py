"""Searches with real runs: killed in the middle and continued, poor trials stopped, and the conclusion in words."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dynlora.cli.search import words
from dynlora.integrations.search.driver import Driver
from dynlora.integrations.search.request import Request, searches
from dynlora.integrations.search.run import STUDIES_DIR, study_file
from dynlora.integrations.search.study import optuna
from dynlora.jobs import spawn
from dynlora.store.notes import read_notes
from dynlora.store.queries import list_runs
from tests.command_line import document, run
from tests.tiny import tiny_arguments, tiny_values
from tests.waiting import until


@pytest.fixture(autouse=True)
def _leave_no_child() -> Iterator[None]:
    """Wait for the processes of runs that ended: their last breath is longer than their last record."""
    yield
    until(lambda: spawn.reap() or not spawn._children, "all processes have ended")


@pytest.mark.journey
def test_a_search_that_was_killed_continues_and_no_trial_runs_twice(
    tiny_bert: Path, tiny_data: Path, tmp_path: Path
) -> None:
    runs = tmp_path / "runs"
    command = [
        "sweep", "--search", "--study", "s", "--trials", "4", "--confirm", "1", "--pruner", "none",
        *tiny_arguments(tiny_bert, tiny_data, "train.steps=12", "train.lr=1e-4..1e-1:log", "adapter.rank=1..4"),
    ]  # fmt: skip
    first = subprocess.Popen([sys.executable, "-m", "dynlora", *command, "--runs-dir", str(runs)])
    try:
        until(lambda: len(list_runs(runs)) >= 3 if runs.is_dir() else False, "the second trial is a run", 300)
    finally:
        os.kill(first.pid, signal.SIGKILL)
        first.wait()
    found = document(run(runs, *command, "--json"))
    (study,) = found["studies"]
    assert [trial["state"] for trial in study["trials"]] == ["complete"] * 4
    ids = [trial["run"] for trial in study["trials"]]
    assert len(set(ids)) == 4
    table = list_runs(runs)
    assert len(table) == 4 + 1 + 2, "trials, default, and the best and the default on a new seed"
    assert set(table["status"]) == {"finished"}
    assert all(read_notes(runs / run_id).tags == ("s",) for run_id in table["id"])
    assert study["best"]["value"] == min(trial["value"] for trial in study["trials"])
    (compared,) = found["comparisons"]
    assert compared["n"] == 1
    assert compared["outcome"] == "few"
    assert document(run(runs, *command, "--json")) == found, "all is there: nothing is trained again"
    assert len(list_runs(runs)) == 7


@pytest.mark.journey
def test_a_poor_trial_is_a_stopped_run(tiny_bert: Path, tiny_data: Path, tmp_path: Path) -> None:
    values = tiny_values(tiny_bert, tiny_data)
    values["train"]["steps"] = 100_000
    values["log"] = {**values.get("log", {}), "eval_every": 10}
    (search,) = searches(Request("p", 7), values, {"train.lr": "1e-7..2e-7:log"})
    (tmp_path / STUDIES_DIR).mkdir()
    said: list[str] = []
    driver = Driver(search, tmp_path, study_file(tmp_path, "p"), said.append)
    space = {"train.lr": optuna().distributions.FloatDistribution(1e-7, 2e-7, log=True)}
    for _ in range(6):
        good = optuna().trial.create_trial(
            params={"train.lr": 1e-7}, distributions=space, value=1e-3,
            intermediate_values=dict.fromkeys(range(0, 200, 10), 1e-3),
        )  # fmt: skip
        driver.study.add_trial(good)
    driver.run()
    trial = driver.study.trials[-1]
    assert trial.state is optuna().trial.TrialState.PRUNED
    assert set(list_runs(tmp_path)["status"]) == {"stopped"}
    assert trial.intermediate_values
    assert "(stopped early); best 0.0010" in said[-1]


def test_the_conclusion_comes_first() -> None:
    trial = {"number": 3, "value": 0.31, "values": {"train.lr": 0.0123456, "adapter.rank": 4}}
    study = {
        "study": "s", "objective": "loss", "trials": [{"state": "complete"}, {"state": "pruned"}], "best": trial,
        "importance": {"train.lr": 0.9, "adapter.rank": 0.1}, "default": {"value": 0.4},
    }  # fmt: skip
    one = {"what": "s: best", "against": "s: default", "n": 3, "key": "loss", "difference": -0.05, "low": -0.08,
           "high": -0.02, "outcome": "better"}  # fmt: skip
    text = words({"studies": [study], "comparisons": [one]}).splitlines()
    assert text[0] == ("s: best is better than s: default (loss −0.0500, 95 % CI −0.0800 to −0.0200, 3 new seeds)")
    assert "--set train.lr=0.01235 --set adapter.rank=4" in text[3]
    assert "train.lr 90 %" in text[4]
    unclear = words({"studies": [], "comparisons": [{**one, "outcome": "unclear"}]})
    assert unclear.startswith("s: best against s: default: not significantly different (loss")
    none = {**study, "best": None, "trials": [{"state": "fail"}]}
    assert "no trial finished (1 trials, 0 stopped early, 1 failed)" in words({"studies": [none], "comparisons": []})


def test_a_wrong_first_trial_is_a_sentence_and_leaves_no_run(tmp_path: Path) -> None:
    result = run(
        tmp_path / "runs", "sweep", "--search", "--set", "train.lr=1e-4..1e-2:log", "--set", "data.name=nothing"
    )
    assert result.exit_code == 2
    assert "data.name" in result.output
    assert not len(list_runs(tmp_path / "runs"))
