"""The inference child: shared, asked over JSON; it may die, hang, starve or grow idle, and whoever asks is told."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from dynlora.answering import Answering
from dynlora.errors import ConfigError, DynloraError
from dynlora.inference_child import MAX_QUESTION, InferenceChild, answer_command, knockout_file
from dynlora.store.knockouts import read_knockouts

TEXT = "the film was great"


@pytest.fixture
def child() -> Iterator[InferenceChild]:
    """A child of the test's own."""
    child = InferenceChild()
    yield child
    child.stop()
    assert child.pid is None


def asked(child: InferenceChild, run: Path, **more: Any) -> list[dict]:
    """Ask for the answer to a text."""
    return child.ask("answers", folder=str(run), which="last", texts=[TEXT], pairs=None, mode="adapter", **more)


def ended(pid: int) -> None:
    """Wait until a process is gone."""
    psutil.wait_procs([psutil.Process(pid)] if psutil.pid_exists(pid) else [], timeout=30)


def test_it_answers_refuses_and_is_there_again_after_it_was_killed_or_hung(
    child: InferenceChild, trained_run: Path
) -> None:
    first = asked(child, trained_run)
    assert first[0]["text"] == TEXT
    pid = child.pid
    assert pid is not None
    with pytest.raises(ConfigError, match="must be last or best"):
        child.ask("answers", folder=str(trained_run), which="worst", texts=[TEXT], pairs=None, mode="adapter")
    with pytest.raises(DynloraError, match="could not be answered"):
        child.ask("nonsense")
    assert child.pid == pid, "a refused question costs nothing"

    os.kill(pid, signal.SIGKILL)
    ended(pid)
    assert asked(child, trained_run) == first
    pid = child.pid
    assert pid is not None

    os.kill(pid, signal.SIGSTOP)
    long = ["great film " * 1000] * 100  # more than a pipe holds: a child that hangs does not even read it
    with pytest.raises(DynloraError, match="did not answer within 1 s and was ended"):
        child.ask(
            "answers", timeout_s=1, folder=str(trained_run), which="last", texts=long, pairs=None, mode="adapter"
        )  # fmt: skip
    assert child.pid is None
    assert not psutil.pid_exists(pid)


def test_it_says_when_memory_is_short(trained_run: Path) -> None:
    small = InferenceChild(memory=150_000_000)
    with pytest.raises(DynloraError, match="memory"):
        asked(small, trained_run)
    small.stop()


def test_a_question_that_is_too_long_is_refused_before_it_is_sent(child: InferenceChild, trained_run: Path) -> None:
    with pytest.raises(ConfigError, match="too long for the model's process"):
        child.ask(
            "answers", folder=str(trained_run), which="last", texts=["x" * MAX_QUESTION], pairs=None, mode="adapter"
        )


def test_it_ends_when_nobody_asks_and_when_its_parent_is_gone(trained_run: Path) -> None:
    idle = InferenceChild(idle_s=0.2)
    first = asked(idle, trained_run)
    pid = idle.pid
    if pid is not None:
        ended(pid)
    assert idle.pid is None
    assert asked(idle, trained_run) == first, "the next question starts another"
    idle.stop()


def test_nothing_of_a_users_is_on_its_command_line() -> None:
    assert answer_command()[1:] == ["-m", "dynlora", "answer"]
    assert answer_command(1.5, 10)[4:] == ["--idle", "1.5", "--memory", "10"]


def test_a_knock_out_goes_on_between_questions(trained_run: Path, tmp_path: Path) -> None:
    answering = Answering()
    question = {"folder": str(trained_run), "which": "last"}
    file = tmp_path / "knockout.json"
    state = answering.model(str(trained_run), "last")
    started = answering._knockout(str(trained_run), "last", str(file), rows=16)
    assert started == {"done": 0, "of": len(state.model.adapters), "error": None, "ended": False}
    answering.advance()
    answering.advance()
    assert answering._progress(**question)["done"] == 1
    assert answering._knockout(str(trained_run), "last", str(file), rows=16)["done"] == 1, "the same: no second one"
    with pytest.raises(ConfigError, match="another knock-out of this run is under way"):
        answering._knockout(str(trained_run), "last", str(file), sets=[[0, 1]], rows=16)
    assert answering._answers(**question, texts=[TEXT], pairs=None, mode="adapter")
    kept = read_knockouts(file)
    assert kept is not None
    assert len(kept.effects) == 1
    while answering.busy:
        answering.advance()
    assert answering._progress(**question)["ended"]
    kept = read_knockouts(file)
    assert kept is not None
    assert len(kept.alone) == kept.n_modules


def test_knock_outs_of_a_run_that_cannot_be_written_go_to_the_cache(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert knockout_file(tmp_path) == tmp_path / "knockout.json"
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert knockout_file(tmp_path).is_relative_to(cache)
