"""Advice asked for from a page: a process of its own, one answer to a question, and nothing that is taken on trust."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dynlora.cli.main import main
from dynlora.jobs import advice, helper_job
from dynlora.jobs.advice import RANKS, RATE, Answer, Topic
from dynlora.jobs.helper_job import Failure
from tests.jobs.helpers import fails, helper, waits
from tests.tiny import tiny_values
from tests.waiting import until


def answer(**changes: Any) -> dict[str, Any]:
    """What `dynlora advise --json` prints of a model with one module."""
    family = {
        "name": "query",
        "modules": 1,
        "mean_rank": 2.0,
        "parameters_share": 1.0,
        "gain_share": 1.0,
        "gain_per_parameter": 1.0,
        "low": 1.0,
        "high": 1.0,
        "can_go": False,
    }
    module = {"name": "a.query", "layer": 0, "kind": "query", "d_in": 4, "d_out": 4, "rank": 2, "gain_share": 1.0}
    return {
        "ranks": {"a.query": 2},
        "scaling": {"a.query": 2.0},
        "parameters": 16,
        "budget": 16,
        "uniform_rank": 2,
        "task_type": "SEQ_CLS",
        "modules": [module],
        "families": [family],
        "layers": [],
        "confidence": {"correlation": None, "agreement": 1.0, "level": "high"},
        "look": {"warm_steps": 1, "look_steps": 2, "rows": 24, "seconds": 1.0},
        **changes,
    }


def rate_answer() -> dict[str, Any]:
    """What `dynlora advise --rate --json` prints."""
    rates = np.geomspace(1e-4, 0.1, 61).tolist()
    return {
        "rate": 0.0057,
        "why": "",
        "low": 0.0045,
        "high": 0.0051,
        "level": "high",
        "steepest": 0.0095,
        "lowest": 0.017,
        "breaks": 0.03,
        "default": 0.001,
        "tests": [{"seed": 0, "rates": rates, "losses": [*np.linspace(5, 4, 50).tolist(), *[5.0] * 10, None]}],
        "look": {"method": "lora", "rank": 1, "steps": 61, "rows": 1952, "seconds": 20.0},
    }


@pytest.fixture
def as_command(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Commands that are started in the place of the look, and those that were; the last one is used again."""
    commands: list[list[str]] = []
    monkeypatch.setattr(advice, "_command", lambda *_: commands[-1])
    return commands


@pytest.mark.journey
def test_a_question_is_answered(tiny_bert: Path, tiny_data: Path, runs_dir: Path) -> None:
    config = tiny_values(tiny_bert, tiny_data)
    assert advice.look(config, runs_dir) is None
    advice.ask(config, runs_dir)
    assert state(config, runs_dir) == "running"
    until(lambda: state(config, runs_dir) != "running", "the look")
    job = advice.look(config, runs_dir)
    assert job is not None
    assert job.status == "done", job.error
    assert sum(job.result["ranks"].values()) > 0


WRITES = "import pathlib, sys; pathlib.Path(sys.argv[1]).write_text(sys.argv[2])"


def state(config: dict[str, Any], runs_dir: Path) -> str:
    """How a question stands."""
    job = advice.look(config, runs_dir)
    return "none" if job is None else job.status


def test_an_answer_is_that_of_its_question_and_is_not_asked_for_again(
    runs_dir: Path, monkeypatch: pytest.MonkeyPatch, as_command: list[list[str]]
) -> None:
    config = {"train": {"lr": 0.1}}
    as_command.append(helper(WRITES, str(advice.answer_file(config, runs_dir)), json.dumps(answer())))
    advice.ask(config, runs_dir)
    until(lambda: state(config, runs_dir) == "done", "the answer")
    assert state({**config, "strategy": {"name": "lora"}, "name": "x"}, runs_dir) == "done", "the same look"
    assert state({**config, "seed": 3}, runs_dir) == "none"
    monkeypatch.setattr(helper_job, "start", lambda *_: pytest.fail("asked again"))
    advice.ask(config, runs_dir)


def test_rows_that_changed_are_another_question(runs_dir: Path, tmp_path: Path, as_command: list[list[str]]) -> None:
    rows = tmp_path / "rows.csv"
    rows.write_text("text,label\na,b\n", "utf-8")
    config = {"data": {"path": str(rows)}}
    file = advice.answer_file(config, runs_dir)
    file.parent.mkdir()
    file.write_text(json.dumps(answer()), "utf-8")
    assert state(config, runs_dir) == "done"
    rows.write_text("text,label\na,b\nc,d\n", "utf-8")
    assert state(config, runs_dir) == "none"


def test_a_refusal_is_the_child_s_sentence_and_can_be_asked_again(runs_dir: Path, as_command: list[list[str]]) -> None:
    config = {"train": {"lr": 99}}
    as_command.append(fails("train.lr=99: is too large"))
    advice.ask(config, runs_dir)
    until(lambda: state(config, runs_dir) == "failed", "the refusal")
    job = advice.look(config, runs_dir)
    assert job is not None
    assert job.error == Failure(kind="ConfigError", message="train.lr=99: is too large")
    as_command.append(waits(3, 8))
    advice.ask(config, runs_dir)
    until(lambda: (job := advice.look(config, runs_dir)) is not None and job.progress.done == 3, "how far it is")
    advice.cancel(config, runs_dir)
    assert state(config, runs_dir) == "none"
    assert [file.name for file in advice.answer_file(config, runs_dir).parent.iterdir()] == ["ask.lock"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x" * (Answer.MAX_BYTES + 1),
        json.dumps(answer(ranks={"b": 2})),
    ],
)
def test_a_file_that_is_no_advice_is_not_shown(runs_dir: Path, as_command: list[list[str]], text: str) -> None:
    file = advice.answer_file({}, runs_dir)
    file.parent.mkdir()
    file.write_text(text, "utf-8")
    job = advice.look({}, runs_dir)
    assert job is not None
    assert (job.status, job.result) == ("failed", None)
    assert job.error is not None
    assert "holds no advice" in job.error.message
    file.write_text(json.dumps(answer()), "utf-8")
    assert state({}, runs_dir) == "done"


def test_old_answers_go(runs_dir: Path, as_command: list[list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(advice, "MOST", 3)
    as_command.append([sys.executable, "-c", ""])
    for seed in range(5):
        advice.ask({"seed": seed}, runs_dir)
        until(lambda of=seed: state({"seed": of}, runs_dir) == "failed", "its end")
    kept = [seed for seed in range(5) if state({"seed": seed}, runs_dir) != "none"]
    assert len(kept) == 3
    assert 4 in kept


def test_a_rate_is_another_question_which_the_rate_and_length_of_the_run_do_not_change(
    runs_dir: Path, as_command: list[list[str]]
) -> None:
    config = {"train": {"batch_size": 8}}
    as_command.append(helper(WRITES, str(advice.answer_file(config, runs_dir, RATE)), json.dumps(rate_answer())))
    advice.ask(config, runs_dir, RATE)
    until(lambda: (job := advice.look(config, runs_dir, RATE)) is not None and job.status == "done", "the answer")
    assert state(config, runs_dir) == "none", "nobody asked about ranks"
    other = {"name": "x", "train": {"batch_size": 8, "lr": 0.3, "steps": 7, "schedule": "cosine"}}
    assert advice.look(other, runs_dir, RATE) is not None
    for changed in ({"train": {"batch_size": 9}}, {**config, "strategy": {"name": "lora"}}, {**config, "seed": 2}):
        assert advice.look(changed, runs_dir, RATE) is None
    assert advice.answer_file({}, runs_dir, RATE) == advice.answer_file({"train": {"lr": 0.3}}, runs_dir, RATE)


@pytest.mark.parametrize("topic", [RANKS, RATE])
def test_the_process_that_looks_gets_a_command_that_there_is(topic: Topic, tmp_path: Path) -> None:
    request, answer = tmp_path / "request.yaml", tmp_path / "answer.json"
    request.touch()
    command = advice._command(request, answer, *topic.options)
    start = command.index("dynlora") + 1
    options = main.commands[command[start]].make_context("advise", command[start + 1 :]).params
    assert (options["config"], options["out"]) == (request, answer)
    assert options["rate"] == (topic is RATE)
