"""The list of runs: a row opens its card, a queue can be reordered, and what was just done is said once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from dynlora.jobs import launch, queue
from tests.pages.app import charts, open_page, words
from tests.store.builder import new_run
from tests.viz.runs import make_run

IDS = [f"20260101-000000-0000000{number}" for number in range(3)]


def pick(app: AppTest, rows: list[int], cells: list[tuple[int, str]]) -> AppTest:
    """Tick rows and click on cells as a browser does."""
    app.session_state[app.session_state["grid"][0]] = {"selection": {"rows": rows, "columns": [], "cells": cells}}
    app.run()
    return app


def titles(app: AppTest) -> list[str]:
    return [one.value.replace("\u200b", "") for one in app.markdown if one.value.startswith("#####")]


def test_a_click_on_a_row_shows_its_run_with_its_curves_and_its_actions(runs_dir: Path) -> None:
    make_run(runs_dir, run_id=IDS[0], text="older", strategy="lora")
    make_run(runs_dir, run_id=IDS[1], text="newer", state="stopped")
    app = open_page("runs", sort="name")
    assert not charts(app)
    assert app.dataframe[0].value["tab"].tolist() == [f"run?run={IDS[1]}", f"run?run={IDS[0]}"]
    pick(app, [], [(0, "status")])
    assert "##### newer" in titles(app)
    assert [chart["layout"]["yaxis"]["title"]["text"] for chart in charts(app)] == ["Loss (nats)", "Rank of a module"]
    assert {"resume", "delete"} <= {button.key for button in app.button}
    pick(app, [1], [(0, "status")])
    assert "##### older" in titles(app), "what is ticked alone comes before what was clicked"
    pick(app, [0, 1], [(0, "status")])
    assert not charts(app), "two ticked runs are compared, not shown"


def test_a_run_that_cannot_be_read_has_no_card_and_can_be_deleted(runs_dir: Path) -> None:
    (runs_dir / IDS[0]).mkdir(parents=True)
    (runs_dir / IDS[0] / "run.db").write_text("nothing")
    app = pick(open_page("runs"), [0], [])
    app.button(key="delete").click().run()
    assert launch.trashed(runs_dir) == [IDS[0]]


def test_a_queued_run_moves_and_a_toast_says_where_to(runs_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "wake", lambda runs_dir: None)
    for number, run_id in enumerate(IDS):
        new_run(runs_dir, run_id, "queued", name=f"run {number}")
    app = open_page("runs")
    assert "##### Queue: 3 runs waiting" in titles(app)
    assert [app.button(key=f"queue-1-{where}").disabled for where in ("first", "up", "down")] == [True, True, False]
    app.button(key="queue-3-first").click().run()
    assert queue.in_line(runs_dir) == [IDS[2], IDS[0], IDS[1]]
    assert messages(app) == ["Position 1 of 3 in the queue"]
    pick(app, [0], [])  # the newest run, which waits first now
    app.button(key="panel-down").click().run()
    assert queue.in_line(runs_dir) == [IDS[0], IDS[2], IDS[1]]


def test_a_queue_that_changed_meanwhile_is_a_sentence(runs_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "wake", lambda runs_dir: None)
    for run_id in IDS[:2]:
        new_run(runs_dir, run_id, "queued")
    app = open_page("runs")
    inner = queue.move

    def late(root: Any, run_id: str, where: str) -> tuple[int, int]:
        launch.stop(root, run_id)
        return inner(root, run_id, where)

    monkeypatch.setattr(queue, "move", late)
    app.button(key="queue-2-up").click().run()
    assert "does not wait in the queue" in words(app)


TOLD = "20260101-000000-00000001"


def messages(app: AppTest) -> list[str]:
    """Return the messages, without what keeps markdown from reading them."""
    return [toast.value.replace("\u200b", "").replace("\\", "") for toast in app.toast]


@pytest.mark.parametrize(
    ("state", "key", "action", "answer", "words"),
    [
        ("running", "stop", "stop", "stopping", "Stopping: the run finishes its step and saves its state"),
        ("stopped", "resume", "resume", "queued", "Queued: 1 run"),
    ],
)
def test_a_button_says_what_it_did(
    state: str, key: str, action: str, answer: str, words: str, runs_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_run(runs_dir, run_id=TOLD, state=state, steps=7)
    calls: list[str] = []

    def act(_: Any, run_id: str) -> str:
        calls.append(run_id)
        return answer

    monkeypatch.setattr(launch, action, act)
    app = open_page("run", run=TOLD)
    assert messages(app) == []
    app.button(key=key).click().run()
    assert calls == [TOLD]
    assert messages(app) == [words]
    assert messages(app.run()) == [], "each message is shown once"


def test_runs_that_were_deleted_are_counted(runs_dir: Path) -> None:
    for place in (1, 2):
        make_run(runs_dir, run_id=f"{TOLD[:-1]}{place}")
    app = open_page("runs")
    app.session_state[app.session_state["grid"][0]] = {"selection": {"rows": [0, 1], "columns": [], "cells": []}}
    app.run()
    app.button(key="delete").click().run()
    assert messages(app) == ["Moved to the trash: 2 runs"]
    assert len(launch.trashed(runs_dir)) == 2
