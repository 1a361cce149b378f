"""Searches started from a page: the command, how they stand, and names that reach nowhere else."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest
import yaml

from dynlora.errors import ConfigError
from dynlora.jobs import search
from dynlora.jobs.search import STUDIES_DIR, arguments, cancel, searches, start
from dynlora.store.process import start_time
from tests.waiting import until

LISTS = {"train.lr": "1e-4..1e-2:log"}
OPTIONS = {"study": "s", "trials": 4, "each": "", "rates": False}


def child(monkeypatch: pytest.MonkeyPatch, program: str) -> None:
    """Let this program stand where the search would; its process is a real one."""
    monkeypatch.setattr(search, "command", lambda *_: [sys.executable, "-c", program])


def test_options_become_arguments() -> None:
    assert arguments({"study": "s", "trials": 4, "each": "", "rates": True, "wait": False, "confirm": 0}) == [
        "--study", "s", "--trials", "4", "--rates", "--confirm", "0",
    ]  # fmt: skip


def test_a_search_that_runs_says_how_far_it_is_and_can_be_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    child(monkeypatch, "import time; print('s: trial 2 of 4: loss 0.5', flush=True); time.sleep(600)")
    assert start({}, LISTS, OPTIONS, tmp_path) == "s"
    until(lambda: searches(tmp_path)[0].done == 2, "its line is there")
    (one,) = searches(tmp_path)
    assert (one.state, one.of) == ("running", 4)
    with pytest.raises(ConfigError, match="study=s: this search runs already"):
        start({}, LISTS, OPTIONS, tmp_path)
    cancel(tmp_path, "s")
    until(lambda: searches(tmp_path)[0].state == "ended", "it has ended")


def test_the_conclusion_is_what_follows_the_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = [
        "s: default: loss 0.9",
        "s: trial 1 of 1: loss 0.5",
        "s: seed 1: loss best 0.4, default 0.6",
        "better",
        "",
        "s: rest",
    ]
    child(monkeypatch, f"print({chr(10).join(said)!r})")
    start({"train": {"steps": 3}}, LISTS, OPTIONS, tmp_path)
    until(lambda: searches(tmp_path)[0].state == "ended", "it has ended")
    assert searches(tmp_path)[0].said == "better\n\ns: rest"
    written = yaml.safe_load((tmp_path / STUDIES_DIR / "s.yaml").read_text("utf-8"))
    assert written == {"train": {"steps": 3}, "sweep": LISTS}


def test_a_refusal_is_its_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    child(monkeypatch, "import sys; print('Error: train.lr=x: must be a number', file=sys.stderr); sys.exit(2)")
    start({}, LISTS, OPTIONS, tmp_path)
    until(lambda: searches(tmp_path)[0].state == "failed", "it has failed")
    assert searches(tmp_path)[0].said == "train.lr=x: must be a number"


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
    assert {one.name for one in searches(tmp_path)} == {"dir", "odd", "pipe"}
    assert {one.state for one in searches(tmp_path) if one.name != "pipe"} == {"failed"}
