"""Suggested ranks on Launch: asked for, watched, drawn, and taken to a run."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from dynlora.jobs import advice, quick_launch
from tests.jobs.helpers import fails, waits
from tests.jobs.test_advice import answer, rate_answer
from tests.pages.app import charts, open_page, plain, press
from tests.waiting import until

WRITES = "import sys, pathlib; pathlib.Path(sys.argv[1]).write_text(sys.argv[2])"


def answered(monkeypatch: pytest.MonkeyPatch, document: dict[str, Any]) -> None:
    """Let the look be a process that writes an answer."""
    monkeypatch.setattr(
        advice, "_command", lambda _, out, *__: [sys.executable, "-c", WRITES, str(out), json.dumps(document)]
    )


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch, runs_dir: Path) -> list[dict[str, Any]]:
    """Configurations that are started."""
    runs: list[dict[str, Any]] = []

    def start(config: dict[str, Any], *_: Any, **__: Any) -> Any:
        runs.append(config)
        return quick_launch.RunHandle("20260101-000000-00000009", runs_dir)

    monkeypatch.setattr("dynlora.viz.ui.run_actions.start", start)
    return runs


def test_ranks_are_suggested_drawn_and_trained(
    monkeypatch: pytest.MonkeyPatch, started: list[dict[str, Any]], runs_dir: Path
) -> None:
    answered(monkeypatch, answer())
    app = open_page("launch", preset="Quick look")
    assert "Suggested ranks" not in plain(app)
    press(app, "Suggest ranks")
    until(lambda: "Give every kind of module the mean rank 2" in plain(app.run()), "the answer")
    text = plain(app)
    assert "High confidence in the order of the modules" in text
    assert "no guarantee" in text
    assert any(trace["type"] == "heatmap" for figure in charts(app) for trace in figure["data"])
    assert any("LoraConfig(" in code.value for code in app.code)
    press(app, "Train with these ranks")
    press(app, "Train a uniform baseline")
    ranked, uniform = started
    assert json.loads(Path(ranked["strategy"]["ranks_from"]).read_text("utf-8"))["ranks"] == {"a.query": 2}
    assert uniform["strategy"] == {"name": "lora"}
    assert {**ranked, "strategy": 0, "name": 0} == {**uniform, "strategy": 0, "name": 0}


def test_hostile_names_stay_text(monkeypatch: pytest.MonkeyPatch) -> None:
    evil = "<script>alert(1)</script>"
    family = {**answer()["families"][0], "name": evil, "can_go": True}
    other = {**family, "mean_rank": 1.0}
    answered(monkeypatch, answer(families=[family, other]))
    app = press(open_page("launch", preset="Quick look"), "Suggest ranks")
    until(lambda: "Give most rank" in plain(app.run()), "the answer")
    assert not any(evil in str(one.value) for one in app.markdown if one.allow_html)


def test_a_look_can_be_cancelled_and_says_why_it_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(advice, "_command", lambda *_: waits())
    app = press(open_page("launch", preset="Quick look"), "Suggest ranks")
    until(lambda: any(button.label == "Cancel" for button in app.run().button), "the look")
    press(app, "Cancel")
    until(lambda: not any(button.label == "Cancel" for button in app.run().button), "the end")
    monkeypatch.setattr(advice, "_command", lambda *_: fails("no room"))
    press(app, "Suggest ranks")
    until(lambda: any("no room" in str(error.value) for error in app.run().error), "the reason")


def test_a_rate_is_suggested_drawn_and_put_into_the_form(monkeypatch: pytest.MonkeyPatch) -> None:
    answered(monkeypatch, rate_answer())
    app = open_page("launch", preset="Quick look")
    assert "Suggest rate" not in {button.label for button in app.button}, "the default is as good there"
    app = open_page("launch", preset="Instruction tuning")
    [button] = [one for one in app.button if one.label == "Suggest rate"]
    assert "gained 0.014 and 0.019 nats over the default" in button.help
    press(app, "Suggest rate")
    until(lambda: "Train with the rate 0.0057" in plain(app.run()), "the answer")
    assert "High confidence: its two halves suggest 0.0045 to 0.0051" in plain(app)
    [curve] = [figure for figure in charts(app) if "Learning rate" in json.dumps(figure["layout"])]
    assert [shape["x0"] for shape in curve["layout"]["shapes"]] == [0.0057, 0.03]
    [field] = [one for one in app.number_input if one.label.startswith("Learning rate")]
    assert field.value != 0.0057
    press(app, "Use 0.0057")
    [field] = [one for one in app.number_input if one.label.startswith("Learning rate")]
    assert field.value == 0.0057
    assert "train.lr=0.0057" in app.code[0].value + app.code[1].value
    assert "Train with the rate 0.0057" in plain(app), "the answer is about any rate"
