"""Advice asked for from a page: a process of its own, one answer to a question, and nothing that is taken on trust."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from dynlora.jobs import advice
from tests.tiny import tiny_values
from tests.waiting import until

SLEEPS = [sys.executable, "-c", "import time; print('step 3 of 8', flush=True); time.sleep(3600)"]


def answer(**changes: Any) -> dict[str, Any]:
    """What `dynlora advise --json` prints of a model with one module."""
    family = {
        "name": "query", "modules": 1, "mean_rank": 2.0, "parameters_share": 1.0, "gain_share": 1.0,
        "gain_per_parameter": 1.0, "low": 1.0, "high": 1.0, "can_go": False,
    }  # fmt: skip
    module = {"name": "a.query", "layer": 0, "kind": "query", "d_in": 4, "d_out": 4, "rank": 2, "gain_share": 1.0}
    return {
        "ranks": {"a.query": 2}, "scaling": {"a.query": 2.0}, "parameters": 16, "budget": 16, "uniform_rank": 2,
        "task_type": "SEQ_CLS", "modules": [module], "families": [family], "layers": [],
        "confidence": {"correlation": None, "agreement": 1.0, "level": "high"},
        "look": {"warm_steps": 1, "look_steps": 2, "rows": 24, "seconds": 1.0}, **changes,
    }  # fmt: skip


@pytest.fixture
def as_command(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Commands that are started in the place of the look, and those that were; the last one is used again."""
    commands: list[list[str]] = []
    monkeypatch.setattr(advice, "_command", lambda *_: commands[-1])
    return commands


@pytest.mark.journey
def test_a_question_is_answered_once(
    tiny_bert: Path, tiny_data: Path, runs_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny_values(tiny_bert, tiny_data)
    assert advice.look(config, runs_dir).state == "none"
    advice.ask(config, runs_dir)
    assert advice.look(config, runs_dir).state == "running"
    until(lambda: advice.look(config, runs_dir).state != "running", "the look")
    found = advice.look(config, runs_dir)
    assert found.state == "done", found.said
    assert sum(found.found["ranks"].values()) > 0
    assert advice.look({**config, "strategy": {"name": "lora"}, "name": "x"}, runs_dir).state == "done", "the same look"
    assert advice.look({**config, "seed": 3}, runs_dir).state == "none"
    monkeypatch.setattr(advice, "spawn_detached", lambda *_: pytest.fail("asked again"))
    advice.ask(config, runs_dir)


WRITES = "import pathlib, sys; pathlib.Path(sys.argv[1]).write_text(sys.argv[2])"


def test_an_answer_is_that_of_its_question_and_is_not_asked_for_again(
    runs_dir: Path, monkeypatch: pytest.MonkeyPatch, as_command: list[list[str]]
) -> None:
    config = {"train": {"lr": 0.1}}
    as_command.append([sys.executable, "-c", WRITES, str(advice.look(config, runs_dir).file), json.dumps(answer())])
    advice.ask(config, runs_dir)
    until(lambda: advice.look(config, runs_dir).state == "done", "the answer")
    assert advice.look({**config, "strategy": {"name": "lora"}, "name": "x"}, runs_dir).state == "done", "the same look"
    assert advice.look({**config, "seed": 3}, runs_dir).state == "none"
    monkeypatch.setattr(advice, "spawn_detached", lambda *_: pytest.fail("asked again"))
    advice.ask(config, runs_dir)


def test_rows_that_changed_are_another_question(runs_dir: Path, tmp_path: Path, as_command: list[list[str]]) -> None:
    rows = tmp_path / "rows.csv"
    rows.write_text("text,label\na,b\n", "utf-8")
    config = {"data": {"path": str(rows)}}
    file = advice.look(config, runs_dir).file
    file.parent.mkdir()
    file.write_text(json.dumps(answer()), "utf-8")
    assert advice.look(config, runs_dir).state == "done"
    rows.write_text("text,label\na,b\nc,d\n", "utf-8")
    assert advice.look(config, runs_dir).state == "none"


def test_a_refusal_is_the_child_s_sentence_and_can_be_asked_again(runs_dir: Path, as_command: list[list[str]]) -> None:
    as_command.append([sys.executable, "-c", "import sys; sys.exit('Error: train.lr=99: is too large')"])
    advice.ask({"train": {"lr": 99}}, runs_dir)
    until(lambda: advice.look({"train": {"lr": 99}}, runs_dir).state == "failed", "the refusal")
    assert advice.look({"train": {"lr": 99}}, runs_dir).said == "train.lr=99: is too large"
    as_command.append(SLEEPS)
    advice.ask({"train": {"lr": 99}}, runs_dir)
    until(lambda: advice.look({"train": {"lr": 99}}, runs_dir).step == 3, "the word of how far it is")
    assert advice.look({"train": {"lr": 99}}, runs_dir).of == 8
    advice.cancel({"train": {"lr": 99}}, runs_dir)
    assert advice.look({"train": {"lr": 99}}, runs_dir).state == "none"


@pytest.mark.parametrize(
    "text",
    [
        "", "[]", "{}", "x" * (advice.Answer.MAX_BYTES + 1),
        json.dumps(answer(ranks={"b": 2})), json.dumps(answer(families=[])), json.dumps(answer(budget=-1)),
        json.dumps(answer(modules=[{"name": 3}])), json.dumps(answer(scaling={"a.query": "2"})),
    ],
)  # fmt: skip
def test_a_file_that_is_no_advice_is_not_shown(runs_dir: Path, as_command: list[list[str]], text: str) -> None:
    file = advice.look({}, runs_dir).file
    file.parent.mkdir()
    file.write_text(text, "utf-8")
    found = advice.look({}, runs_dir)
    assert (found.state, dict(found.found)) == ("failed", {})
    assert "holds no advice" in found.said
    file.write_text(json.dumps(answer()), "utf-8")
    assert advice.look({}, runs_dir).state == "done"


def test_old_answers_go(runs_dir: Path, as_command: list[list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(advice, "KEPT", 3)
    as_command.append([sys.executable, "-c", ""])
    for seed in range(5):
        advice.ask({"seed": seed}, runs_dir)
        until(lambda of=seed: advice.look({"seed": of}, runs_dir).state == "failed", "its end")
    kept = [seed for seed in range(5) if advice.look({"seed": seed}, runs_dir).state != "none"]
    assert len(kept) == 3
    assert 4 in kept
