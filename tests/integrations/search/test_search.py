"""Searches with real runs: killed in the middle and continued, poor trials stopped, and the conclusion in words."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from dynlora.cli.sweep import words
from dynlora.errors import ConfigError
from dynlora.integrations.search.driver import Driver, Ended, Range, optuna
from dynlora.integrations.search.run import _run as run_one
from dynlora.integrations.search.run import searches, study_file
from dynlora.jobs import quick_launch, spawn
from dynlora.jobs.sweep import STUDIES_DIR, Request
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
        "sweep",
        "--search",
        "--study",
        "s",
        "--trials",
        "3",
        "--confirm",
        "1",
        "--pruner",
        "none",
        *tiny_arguments(tiny_bert, tiny_data, "train.steps=12", "train.lr=1e-4..1e-1:log", "adapter.rank=1..4"),
    ]
    first = subprocess.Popen([sys.executable, "-m", "dynlora", *command, "--runs-dir", str(runs)])
    try:
        until(lambda: len(list_runs(runs)) >= 3 if runs.is_dir() else False, "the second trial is a run", 300)
    finally:
        os.kill(first.pid, signal.SIGKILL)
        first.wait()
    report = document(run(runs, *command, "--json"))
    (study,) = report["studies"]
    assert [trial["state"] for trial in study["trials"]] == ["complete"] * 3
    ids = [trial["run"] for trial in study["trials"]]
    assert len(set(ids)) == 3
    table = list_runs(runs)
    assert len(table) == 3 + 1 + 2, "trials, default, and the best and the default on a new seed"
    assert set(table["status"]) == {"finished"}
    assert all(read_notes(runs / run_id).tags == ("s",) for run_id in table["id"])
    assert study["best"]["value"] == min(trial["value"] for trial in study["trials"])
    (compared,) = report["comparisons"]
    assert compared["n"] == 1
    assert compared["outcome"] == "few"
    assert document(run(runs, *command, "--json")) == report, "all is there: nothing is trained again"
    assert len(list_runs(runs)) == 6


@pytest.mark.journey
def test_a_poor_trial_is_a_stopped_run(tiny_bert: Path, tiny_data: Path, tmp_path: Path) -> None:
    values = tiny_values(tiny_bert, tiny_data)
    values["train"]["steps"] = 100_000
    values["log"] = {**values.get("log", {}), "eval_every": 10}
    (search,) = searches(Request.of(study="p", trials=7), values, {"train.lr": "1e-7..2e-7:log"})
    (tmp_path / STUDIES_DIR).mkdir()
    messages: list[str] = []
    driver = Driver(search, tmp_path, study_file(tmp_path, "p"), messages.append)
    space = {"train.lr": optuna().distributions.FloatDistribution(1e-7, 2e-7, log=True)}
    for _ in range(6):
        good = optuna().trial.create_trial(
            params={"train.lr": 1e-7},
            distributions=space,
            value=1e-3,
            intermediate_values=dict.fromkeys(range(0, 200, 10), 1e-3),
        )
        driver.study.add_trial(good)
    driver.run()
    trial = driver.study.trials[-1]
    assert trial.state is optuna().trial.TrialState.PRUNED
    assert set(list_runs(tmp_path)["status"]) == {"stopped"}
    assert trial.intermediate_values
    assert "(stopped early); best 0.0010" in messages[-1]


@pytest.fixture
def driver(tiny_bert: Path, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Driver:
    """A search whose queue starts nothing."""
    monkeypatch.setattr(quick_launch, "wake", lambda _: None)
    (tmp_path / STUDIES_DIR).mkdir()
    (search,) = searches(
        Request.of(study="q", trials=3),
        tiny_values(tiny_bert, tiny_data),
        {"train.lr": "1e-4..1e-1:log"},
    )
    return Driver(search, tmp_path, study_file(tmp_path, "q"), print)


def test_what_confirms_a_new_best_is_a_new_run_and_what_is_there_is_not_made_again(driver: Driver) -> None:
    def queued(lr: float) -> str:
        return driver._queued(driver.search.config({"train.lr": lr}, "best seed 1", 1), "best seed 1")

    first, other = queued(1e-3), queued(2e-3)
    assert first != other, "another trial became the best"
    assert queued(1e-3) == first
    shutil.rmtree(driver.runs_dir / first)
    again = queued(1e-3)
    assert again not in (first, other), "a run that was deleted is made again"
    assert queued(1e-3) == again


@pytest.mark.parametrize("change", ["settings", "ranges", "objective"])
def test_a_study_continues_with_what_it_began_with(driver: Driver, change: str) -> None:
    changes = {
        "settings": {"base": {**driver.search.base, "seed": 5}},
        "objective": {"request": driver.search.request.model_copy(update={"objective": "perplexity"})},
        "ranges": {"space": {"train.lr": Range(1e-3, 1e-1, False, True)}},
    }[change]
    Driver(driver.search, driver.runs_dir, study_file(driver.runs_dir, "q"), print)
    with pytest.raises(ConfigError, match=f"--study q: this study has other {change} .*name another study"):
        Driver(replace(driver.search, **changes), driver.runs_dir, study_file(driver.runs_dir, "q"), print)


def test_a_metric_that_the_task_does_not_record_ends_the_search_after_the_default(
    driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = Ended("a-run", "finished", None, metrics=("loss", "accuracy"))
    monkeypatch.setattr(driver, "other", lambda *_: ended)
    with pytest.raises(
        ConfigError, match="run a-run with the default values records accuracy, loss; name one of these"
    ):
        run_one(driver, 1)
    assert not driver.study.trials


@pytest.mark.parametrize(
    ("ended", "state", "kept"),
    [
        (Ended("a-run", "failed", None, why="the loss is nan", has_diverged=True), "PRUNED", "failed"),
        (Ended("a-run", "failed", None, why="out of memory"), "FAIL", "failed"),
        (Ended("a-run", "removed", None), "FAIL", "removed"),
        (Ended("a-run", "stopped", None, pruned=True), "PRUNED", "stopped early"),
        (Ended("a-run", "stopped", None), "PRUNED", "stopped"),
    ],
)
def test_how_a_trial_ended_is_told_as_it_was(
    driver: Driver, monkeypatch: pytest.MonkeyPatch, ended: Ended, state: str, kept: str
) -> None:
    monkeypatch.setattr(driver, "_watched", lambda *_: ended)
    driver._finish(driver.study.ask())
    (trial,) = driver.study.trials
    assert (trial.state.name, trial.user_attrs["status"]) == (state, kept)


def test_the_conclusion_comes_first() -> None:
    trial = {"number": 3, "value": 0.31, "values": {"train.lr": 0.0123456, "adapter.rank": 4}}
    study = {
        "study": "s",
        "objective": "loss",
        "trials": [{"state": "complete"}, {"state": "pruned"}],
        "best": trial,
        "importance": {"train.lr": 0.9, "adapter.rank": 0.1},
        "default": {"value": 0.4},
    }
    one = {
        "what": "s: best",
        "against": "s: default",
        "n": 3,
        "key": "loss",
        "difference": -0.05,
        "low": -0.08,
        "high": -0.02,
        "outcome": "better",
    }
    text = words({"studies": [study], "comparisons": [one]}).splitlines()
    assert text[0] == ("s: best is better than s: default (loss −0.0500, 95 % CI −0.0800 to −0.0200, 3 new seeds)")
    assert "--set train.lr=0.01235 --set adapter.rank=4" in text[3]
    assert "train.lr 90 %" in text[4]
    unclear = words({"studies": [], "comparisons": [{**one, "outcome": "unclear"}]})
    assert unclear.startswith("s: best against s: default: not significantly different (loss")
    none = {**study, "best": None, "trials": [{"state": "fail"}]}
    assert "no trial finished (1 trials, 0 stopped early, 1 without a result)" in words(
        {"studies": [none], "comparisons": []}
    )


def test_a_method_that_does_not_exist_is_said_before_anything_is_trained(tmp_path: Path) -> None:
    ask = ["sweep", "--search", "--rates", "--each", "strategy.name=lora,lorra"]
    result = run(tmp_path / "runs", *ask)
    assert result.exit_code == 2
    assert "lorra" in result.output
    assert not (tmp_path / "runs").exists()


def test_a_wrong_first_trial_is_a_sentence_and_leaves_no_run(tmp_path: Path) -> None:
    result = run(
        tmp_path / "runs", "sweep", "--search", "--set", "train.lr=1e-4..1e-2:log", "--set", "data.name=nothing"
    )
    assert result.exit_code == 2
    assert "data.name" in result.output
    assert not len(list_runs(tmp_path / "runs"))
