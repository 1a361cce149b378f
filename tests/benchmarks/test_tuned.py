"""Runs at a rate of their own: what is kept is read again, and data in conflict is what it says."""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd
import pytest

from benchmarks import tuned
from benchmarks.conflict import MADE, turned, two_tasks
from benchmarks.kept_runs import KeptRuns

SETUP = {"data": "data/clinc150", "model": "minilm", "rank": 1, "steps": 300, "rows": 1500}


def test_committed_runs_are_read_as_they_were_kept() -> None:
    arguments = argparse.Namespace(**SETUP, kept=tuned.KEPT)
    run = tuned.kept_run(arguments, "lora, scale", 1000, 0.0175)
    assert len(run["loss"]) == len(run["right"]) == 1500
    assert run["reaction"] is None, "a scale does not see the input"
    assert run["parameters"] <= 41_472, "the budget of uniform rank 1"


def test_what_is_kept_is_not_trained_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = argparse.Namespace(**SETUP, kept=KeptRuns.below(tmp_path), processes=1)
    made = {"job": {}, "steps": 300, "diverged": True}
    arguments.kept.keep(tuned.file_name(arguments, ("lora", 1, 0.01)), made)
    jobs: list[tuned.Job] = []
    monkeypatch.setattr(tuned, "trained", lambda _, job: jobs.append(job))
    monkeypatch.setattr(tuned, "_quiet", lambda threads: None)
    tuned.train_all(arguments, [("lora", 1, 0.01), ("lora", 2, 0.01), ("lora", 2, 0.01)])
    assert jobs == [("lora", 2, 0.01)]
    assert tuned.kept_run(arguments, "lora", 1, 0.01) == {"diverged": True}


@pytest.fixture
def table() -> pd.DataFrame:
    """Return examples of four domains, half of them positive."""
    domains = ["tweets", "nyt", "movies", "amazon"] * 50
    labels = [0, 0, 0, 0, 1, 1, 1, 1] * 25
    return pd.DataFrame({"text": [f"text {i}" for i in range(200)], "label": labels, "domain": domains})


def test_labels_are_turned_round_in_the_named_domains_alone(table: pd.DataFrame) -> None:
    changed = turned(table, "tweets")["label"] != table["label"]
    assert changed.equals(table["domain"] == "tweets")
    changed = MADE["turned-two"](table)["label"] != table["label"]
    assert changed.equals(table["domain"].isin(["tweets", "nyt"]))


def test_an_example_of_two_tasks_is_labelled_by_the_question_before_it(table: pd.DataFrame) -> None:
    both = two_tasks(table)
    asks_domain = both["text"].str.startswith("source: ")
    assert 0 < asks_domain.sum() < len(both)
    assert (both["label"][asks_domain] == table["domain"][asks_domain]).all()
    assert set(both["label"][~asks_domain]) == {"negative", "positive"}
    assert two_tasks(table).equals(both), "drawn once"
