"""The Launch page says what becomes of a run it started: it waits, it loads, it was refused, it trains."""

from __future__ import annotations

from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from dynlora.jobs.launch import RunHandle
from dynlora.store.lifecycle import annotate
from dynlora.store.writer import RunWriter
from tests.pages.app import open_page, words
from tests.viz.runs import make_run

RUN = "20260101-000000-00000001"


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch, runs_dir: Path) -> AppTest:
    """The Launch page after its button was pressed, and a run that has nothing but its place in the queue."""
    make_run(runs_dir, state="queued", steps=0)
    monkeypatch.setattr("dynlora.viz.launch.form.start", lambda *_, **__: RunHandle(RUN, runs_dir / RUN))
    app = open_page("launch")
    app.button(key="start").click().run()
    return app


def test_a_run_waits_loads_and_trains(started: AppTest, runs_dir: Path) -> None:
    assert f"Started as {RUN}. It waits in the queue." in words(started)
    with RunWriter.open(runs_dir / RUN, resume_from=None) as writer:
        writer.log("info", "Tokenizing 3,000 texts")
        writer.commit()
        assert f"Started as {RUN}. Tokenizing 3,000 texts." in words(started.run())
        writer.progress(1)
        writer.commit()
        assert "Tokenizing" not in words(started.run())
        assert f"Started as {RUN}." in words(started)
        writer.finish("stopped")


def test_a_refusal_is_its_sentence_as_text(started: AppTest, runs_dir: Path) -> None:
    annotate(runs_dir / RUN, state="failed", error="data.label=*x*: no such column; use <b>label</b>")
    app = started.run()
    [refused] = [element.value for element in app.error]
    assert f"{RUN} was refused before its first step" in refused
    assert "*x*" not in refused.replace("\\*", "")
    assert "<b>" not in refused
    assert not any("Started as" in element.value for element in app.success)


def test_a_run_that_was_deleted_is_no_trouble(started: AppTest, runs_dir: Path) -> None:
    (runs_dir / RUN).rename(runs_dir.parent / "gone")
    started.run()
    assert f"Started as {RUN}." in words(started)
