"""What the disk refuses is one sentence on a page, as everything that dynlora itself refuses."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from dynlora.jobs import launch
from dynlora.store import queries
from dynlora.store.lifecycle import annotate
from dynlora.viz.ui import cards
from tests.pages.app import field, open_page, press, words
from tests.store.builder import finished_run, new_run


def test_an_action_that_the_disk_refuses_is_a_sentence(runs_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = new_run(runs_dir, "one", "queued")

    def refused(*_: object) -> str:
        raise OSError(errno.ENOSPC, "No space left on device", str(run / "run.db"))

    monkeypatch.setattr(launch, "stop", refused)
    app = open_page("run", run="one")
    press(app, "Stop")
    (message,) = [str(error.value) for error in app.error]
    assert "No space left on device" in message
    assert "db" in message
    assert "Errno" not in message


def test_a_page_that_the_disk_refuses_is_a_sentence(runs_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    finished_run(runs_dir, 3, "one")

    def refused(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(queries, "run_summary", refused)
    app = open_page("capacity", run="one")
    assert any("Input/output error" in str(error.value) for error in app.error)


def test_a_part_that_is_drawn_again_alone_says_what_the_system_refuses(
    runs_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Streamlit shows what leaves such a part as a defect, also where the page around it is guarded."""
    finished_run(runs_dir, 3, "one")

    def refused(*_: object, **__: object) -> None:
        raise OSError(errno.ENAMETOOLONG, "File name too long", str(runs_dir / "one"))

    monkeypatch.setattr(cards, "status_line", refused)
    app = open_page("capacity", run="one")
    assert any("File name too long" in str(error.value) for error in app.error)


def test_a_path_that_cannot_be_used_is_a_sentence_on_launch(runs_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "one").symlink_to(tmp_path / "two")
    (tmp_path / "two").symlink_to(tmp_path / "one")
    app = open_page("launch", data="file")
    for path in (f"/tmp/{'a' * 300}", str(tmp_path / "one"), "~nobody-of-this-name/x.csv"):
        for label in ("Path on this machine", "Model"):
            field(app.text_input, label).set_value(path)
        app.run()
        assert "Errno" not in words(app)


def test_rows_that_were_lost_are_said_on_the_page_of_a_finished_run(runs_dir: Path) -> None:
    run = new_run(runs_dir, "one", "queued")
    annotate(run, state="finished", error="7 rows of the record were lost (database or disk is full)")
    app = open_page("run", run="one")
    assert any("7 rows of the record were lost" in str(words.value) for words in app.warning)
