"""What the disk refuses is one sentence on a page, as everything that dynlora itself refuses."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from dynlora.jobs import launch
from dynlora.store import queries
from dynlora.store.lifecycle import annotate
from tests.pages.app import open_page
from tests.store.builder import finished_run, new_run


def test_an_action_that_the_disk_refuses_is_a_sentence(runs_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = new_run(runs_dir, "one", "queued")

    def refused(*_: object) -> str:
        raise OSError(errno.ENOSPC, "No space left on device", str(run / "run.db"))

    monkeypatch.setattr(launch, "stop", refused)
    app = open_page("run", run="one")
    next(button for button in app.button if button.label == "Stop").click().run()
    assert not app.exception
    (said,) = [str(error.value) for error in app.error]
    assert "No space left on device" in said
    assert "db" in said
    assert "Errno" not in said


def test_a_page_that_the_disk_refuses_is_a_sentence(runs_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    finished_run(runs_dir, 3, "one")

    def refused(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(queries, "run_summary", refused)
    app = open_page("capacity", run="one")
    assert any("Input/output error" in str(error.value) for error in app.error)


def test_rows_that_were_lost_are_said_on_the_page_of_a_finished_run(runs_dir: Path) -> None:
    run = new_run(runs_dir, "one", "queued")
    annotate(run, state="finished", error="7 rows of the record were lost (database or disk is full)")
    app = open_page("run", run="one")
    assert any("7 rows of the record were lost" in str(words.value) for words in app.warning)
