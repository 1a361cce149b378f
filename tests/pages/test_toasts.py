"""What was just done is said once, on the page that is drawn after it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from dynlora.jobs import launch
from dynlora.viz.ui import run_actions
from tests.pages.app import open_page
from tests.viz.runs import make_run

RUN = "20260101-000000-00000001"


def messages(app: AppTest) -> list[str]:
    """Return the messages, without what keeps markdown from reading them."""
    return [toast.value.replace("\u200b", "").replace("\\", "") for toast in app.toast]


@pytest.mark.parametrize(
    ("state", "key", "action", "answer", "words"),
    [
        ("running", "stop", "stop", "stopping", "Stopping: the run finishes its step and saves its state"),
        ("queued", "stop", "stop", "stopped", "The run left the queue"),
        ("stopped", "resume", "resume", "queued", "Queued: 1 run"),
    ],
)
def test_a_button_says_what_it_did(
    state: str, key: str, action: str, answer: str, words: str, runs_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_run(runs_dir, run_id=RUN, state=state, steps=7)
    calls: list[str] = []

    def act(_: Any, run_id: str) -> str:
        calls.append(run_id)
        return answer

    monkeypatch.setattr(launch, action, act)
    app = open_page("run", run=RUN)
    assert messages(app) == []
    app.button(key=key).click().run()
    assert calls == [RUN]
    assert messages(app) == [words]
    assert messages(app.run()) == [], "each message is shown once"


def test_runs_that_were_deleted_are_counted(runs_dir: Path) -> None:
    for place in (1, 2):
        make_run(runs_dir, run_id=f"{RUN[:-1]}{place}")
    app = open_page("runs")
    app.session_state[app.session_state["grid"][0]] = {"selection": {"rows": [0, 1], "columns": [], "cells": []}}
    app.run()
    app.button(key="delete").click().run()
    assert messages(app) == ["Moved to the trash: 2 runs"]
    assert len(launch.trashed(runs_dir)) == 2


@pytest.mark.parametrize(
    ("queue", "words"),
    [((0, 1), "Queued: 1 run"), ((1, 1), "Queued: 1 run, 1 run before"), ((1, 3), "Queued: 2 runs, 2 runs before")],
)
def test_a_queued_run_knows_its_place(
    queue: tuple[int, int], words: str, monkeypatch: pytest.MonkeyPatch, runs_dir: Path
) -> None:
    counted: Callable[[Any], tuple[int, int]] = lambda _: queue  # noqa: E731
    monkeypatch.setattr(run_actions, "in_queue", counted)
    assert run_actions.queued_words(2 if "2 runs," in words else 1) == words
