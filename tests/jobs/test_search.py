"""Searches started from a page: the command, how they stand, and names that reach nowhere else."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import yaml

from dynlora.errors import ConfigError
from dynlora.jobs import sweep
from dynlora.jobs.helper_job import Failure
from dynlora.jobs.sweep import STUDIES_DIR, arguments, cancel, searches, start
from dynlora.store.lifecycle import start_time
from tests.jobs.helpers import fails, helper, waits
from tests.waiting import until

LISTS = {"train.lr": "1e-4..1e-2:log"}
OPTIONS = {"study": "s", "trials": 4, "each": "", "rates": False}


def child(monkeypatch: pytest.MonkeyPatch, command: list[str]) -> None:
    """Let this command stand where the search would; its process is a real one."""
    monkeypatch.setattr(sweep, "command", lambda *_: command)


def test_options_become_arguments() -> None:
    assert arguments({"study": "s", "trials": 4, "each": "", "rates": True, "wait": False, "confirm": 0}) == [
        "--study",
        "s",
        "--trials",
        "4",
        "--rates",
        "--confirm",
        "0",
    ]


def test_a_search_that_runs_says_how_far_it_is_and_can_be_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    child(monkeypatch, waits(2, 4, "trial 2 of 4: loss 0.5"))
    assert start({}, LISTS, OPTIONS, tmp_path) == "s"
    until(lambda: searches(tmp_path)["s"].progress.done == 2, "it says how far it is")
    job = searches(tmp_path)["s"]
    assert (job.status, job.progress.of) == ("running", 4)
    with pytest.raises(ConfigError, match="study=s: this search runs already"):
        start({}, LISTS, OPTIONS, tmp_path)
    cancel(tmp_path, "s")
    job = searches(tmp_path)["s"]
    assert (job.status, job.progress.phase, job.is_alive) == ("cancelled", "trial 2 of 4: loss 0.5", False)


def test_the_conclusion_is_what_the_command_says_at_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    child(monkeypatch, helper("print('s: noise'); helper_job.finish({'studies': []}, 'better\\n\\ns: rest')"))
    start({"train": {"steps": 3}}, LISTS, OPTIONS, tmp_path)
    until(lambda: searches(tmp_path)["s"].status == "done", "it has ended")
    assert searches(tmp_path)["s"].message == "better\n\ns: rest"
    assert searches(tmp_path)["s"].result == {"studies": []}
    written = yaml.safe_load((tmp_path / STUDIES_DIR / "s.yaml").read_text("utf-8"))
    assert written == {"train": {"steps": 3}, "sweep": LISTS}


def test_a_refusal_is_its_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    child(monkeypatch, fails("train.lr=x: must be a number"))
    start({}, LISTS, OPTIONS, tmp_path)
    until(lambda: searches(tmp_path)["s"].status == "failed", "it has failed")
    assert searches(tmp_path)["s"].error == Failure(kind="ConfigError", message="train.lr=x: must be a number")


@pytest.mark.parametrize("name", ["../up", "", "a/b", "-rf", "a" * 41, "a b"])
def test_a_name_stays_in_its_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="must be 1 to 40 letters"):
        start({}, LISTS, {**OPTIONS, "study": name}, tmp_path / "runs")
    assert not list(tmp_path.glob("*.yaml"))


def test_what_lies_in_the_folder_by_chance_is_no_search(tmp_path: Path) -> None:
    folder = tmp_path / STUDIES_DIR
    folder.mkdir()
    (folder / "a b.pid").write_text("{}", "utf-8")
    (folder / "dir.pid").mkdir()
    (folder / "odd.pid").write_text("[1", "utf-8")
    os.mkfifo(folder / "pipe.log")
    (folder / "pipe.pid").write_text(json.dumps({"pid": 1, "start": start_time(1)}), "utf-8")
    (folder / "cut.job").write_text('{"kind": "sea', "utf-8")
    assert {name: job.status for name, job in searches(tmp_path).items()} == {
        "pipe": "running",
        "dir": "done",
        "odd": "done",
    }


def test_what_an_earlier_version_left_of_a_search_stays_readable(tmp_path: Path) -> None:
    folder = tmp_path / STUDIES_DIR
    folder.mkdir()
    (folder / "old.pid").write_text('{"pid": 1, "start": 3.0}', "utf-8")
    (folder / "old.log").write_text("old: trial 1 of 1: loss 0.5\nbetter\n", "utf-8")
    assert searches(tmp_path)["old"].message == "old: trial 1 of 1: loss 0.5\nbetter"
