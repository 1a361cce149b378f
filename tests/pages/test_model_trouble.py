"""The Playground when the model's process hangs, dies or starves: a sentence, no trace, and the next question works."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from streamlit.testing.v1 import AppTest

from dynlora.inference import client as inference_client
from dynlora.inference.client import InferenceChild
from dynlora.viz.ui import model_client
from tests.pages.app import open_page, plain
from tests.waiting import PATIENCE_S

HANGS = "import sys, time; sys.stdin.readline(); time.sleep(600)"
EXITS = "import sys; sys.stdin.readline(); sys.exit('the model is <b>upside</b> down')"
KILLED = "import os, signal, sys; sys.stdin.readline(); os.kill(os.getpid(), signal.SIGKILL)"
STARVES = "import sys; sys.stdin.readline(); raise MemoryError"


@pytest.fixture
def child(monkeypatch: pytest.MonkeyPatch) -> Iterator[InferenceChild]:
    """The child that the page asks, of the test's own."""
    child = InferenceChild()
    monkeypatch.setattr(inference_client, "ENDING_S", PATIENCE_S)
    monkeypatch.setattr(model_client, "shared", lambda: child)
    yield child
    child.stop()


def spoil(monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Put a script in the place of the child, and be impatient with one that never answers."""
    monkeypatch.setattr(inference_client, "answer_command", lambda *_: [sys.executable, "-c", script])
    if script == HANGS:
        be_impatient(monkeypatch)


def be_impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait a second for an answer."""
    defaults = InferenceChild.ask.__kwdefaults__
    assert defaults is not None
    monkeypatch.setitem(defaults, "timeout_s", 1.0)


def children() -> set[int]:
    """Return the ids of the processes below this one that still run."""
    processes = psutil.Process(os.getpid()).children(recursive=True)
    return {process.pid for process in processes if process.status() != psutil.STATUS_ZOMBIE}


def test_the_page_says_what_became_of_the_model_and_goes_on(
    child: InferenceChild, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = children()
    with monkeypatch.context() as spoilt:
        spoil(spoilt, EXITS)
        app = open_page("playground", run=run.name, text="great film")
    text = plain(app)
    assert "the model's process ended (exit 1): the model is <b>upside</b> down" in text
    assert len(app.error) == 2, "one for the answers, one for the explanation"
    assert "Predict a file" in text, "the rest of the page is there"
    assert "Adapter predicts" not in text
    assert child.pid is None
    assert children() <= before, "none is left behind"


def ask(app: AppTest, text: str) -> AppTest:
    """Type a text and ask the model."""
    app.text_area[0].set_value(text)
    return next(button for button in app.button if "Predict" in button.label).click().run()


@pytest.mark.journey
def test_the_next_question_finds_a_new_child_whatever_became_of_the_one_before(
    child: InferenceChild, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as spoilt:
        for script, sentence in ((HANGS, "did not respond"), (KILLED, "signal 9"), (STARVES, "ran out of memory")):
            spoil(spoilt, script)
            app = open_page("playground", run=run.name, text="great film")
            assert sentence in plain(app)
    app.run()
    assert not app.exception
    assert not app.error
    assert "Adapter predicts" in plain(app)
    assert "base model with head predicts" in plain(app)
    answered = child.pid
    assert answered is not None

    ask(app, "dull plot")
    assert not app.error
    assert any("plot </span>" in element.proto.body for element in app.get("html"))
    assert child.pid == answered
