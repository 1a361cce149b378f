"""The Playground when the model's process hangs, dies or starves: a sentence, no trace, and the next question works."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from dynlora.inference import client as inference_client
from dynlora.inference.client import InferenceChild
from dynlora.viz.ui import model_client
from tests.pages.app import open_page, plain
from tests.waiting import PATIENCE_S

EXITS = "import sys; sys.stdin.readline(); sys.exit('the model is <b>upside</b> down')"


@pytest.fixture
def child(monkeypatch: pytest.MonkeyPatch) -> Iterator[InferenceChild]:
    """The child that the page asks, of the test's own."""
    child = InferenceChild()
    monkeypatch.setattr(inference_client, "ENDING_S", PATIENCE_S)
    monkeypatch.setattr(model_client, "shared", lambda: child)
    yield child
    child.stop()


def children() -> set[int]:
    """Return the ids of the processes below this one that still run."""
    processes = psutil.Process(os.getpid()).children(recursive=True)
    return {process.pid for process in processes if process.status() != psutil.STATUS_ZOMBIE}


def test_the_page_says_what_became_of_the_model_and_goes_on(
    child: InferenceChild, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = children()
    monkeypatch.setattr(inference_client, "answer_command", lambda *_: [sys.executable, "-c", EXITS])
    app = open_page("playground", run=run.name, text="great film")
    text = plain(app)
    assert "the model's process ended (exit 1): the model is <b>upside</b> down" in text
    assert len(app.error) == 2, "one for the answers, one for the explanation"
    assert "Predict a file" in text, "the rest of the page is there"
    assert "Adapter predicts" not in text
    assert child.pid is None
    assert children() <= before, "none is left behind"
