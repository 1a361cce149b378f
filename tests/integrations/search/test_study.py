"""The file of a study: it continues after any end, and what is no study is refused."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from dynlora.errors import ConfigError, CorruptRunError
from dynlora.integrations.search.driver import opened, optuna
from dynlora.integrations.search.run import found_by


def study_at(path: Path, **how: Any) -> Any:
    return opened(path, **{"sampler": "tpe", "pruner": "median", "direction": "minimize", "seed": 0, **how})


def trained(study: Any, count: int) -> None:
    """Tell a study of trials whose loss depends on one of two settings."""
    for _ in range(count):
        trial = study.ask()
        lr, _ = trial.suggest_float("train.lr", 1e-4, 1e-1, log=True), trial.suggest_int("adapter.rank", 1, 8)
        study.tell(trial, (lr - 0.01) ** 2)


def test_a_study_continues_with_what_it_has(tmp_path: Path) -> None:
    trained(study_at(tmp_path / "a.jsonl"), 6)
    again = study_at(tmp_path / "a.jsonl")
    assert len(again.trials) == 6
    trained(again, 4)
    values = [trial.params["train.lr"] for trial in study_at(tmp_path / "a.jsonl").trials]
    assert len(set(values)) == len(values) == 10


@pytest.mark.parametrize("cut", range(1, 200, 33))
def test_a_study_cut_off_anywhere_is_read_up_to_its_last_whole_line(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "a.jsonl"
    trained(study_at(path), 4)
    whole = path.read_bytes()
    path.write_bytes(whole[:-cut])
    trained(study_at(path), 1)
    assert all(line.endswith(b"}") for line in path.read_bytes().splitlines())
    assert 1 <= len(study_at(path).trials) <= 5


def test_the_lock_of_a_killed_process_is_no_obstacle(tmp_path: Path) -> None:
    trained(study_at(tmp_path / "a.jsonl"), 1)
    (tmp_path / "a.jsonl.lock").touch()
    trained(study_at(tmp_path / "a.jsonl"), 1)
    assert len(study_at(tmp_path / "a.jsonl").trials) == 2


@pytest.mark.parametrize("kind", ["text", "folder", "link", "pipe", "list", "deep"])
def test_what_is_no_study_is_refused_in_a_sentence(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a.jsonl"
    if kind == "folder":
        path.mkdir()
    elif kind == "link":
        path.symlink_to(tmp_path / "nowhere")
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.write_text({"text": "hello\n", "list": "[1]\n", "deep": "[" * 100_000 + "\n"}[kind], "utf-8")
    with pytest.raises(CorruptRunError, match=r"study a: .*remove a\.jsonl"):
        study_at(path)


def test_a_study_keeps_its_direction(tmp_path: Path) -> None:
    study_at(tmp_path / "a.jsonl")
    with pytest.raises(ConfigError, match="study a is to minimize; keep its objective, or name another study"):
        study_at(tmp_path / "a.jsonl", direction="maximize")


def test_without_optuna_one_is_told_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "optuna", None)
    with pytest.raises(ConfigError, match=r"pip install 'dynlora\[search\]'"):
        optuna()


def test_the_setting_that_matters_is_named_first(tmp_path: Path) -> None:
    study = study_at(tmp_path / "a.jsonl", sampler="random")
    trained(study, 25)
    report = found_by(study)
    assert next(iter(report["importance"])) == "train.lr"
    assert report["importance"]["train.lr"] > 0.7
    assert sum(report["importance"].values()) == pytest.approx(1, abs=1e-3)
    assert report["best"]["value"] == min(trial["value"] for trial in report["trials"])
    assert {trial["state"] for trial in report["trials"]} == {"complete"}


def test_few_trials_say_nothing_of_what_mattered(tmp_path: Path) -> None:
    study = study_at(tmp_path / "a.jsonl")
    assert found_by(study)["best"] is None
    trained(study, 3)
    assert found_by(study)["importance"] == {}
