"""The inference child: shared, asked over JSON; it may die, hang, starve or grow idle, and whoever asks is told."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from dynlora.analysis.retention import knockout_file, knockout_target
from dynlora.errors import ConfigError, DynloraError
from dynlora.inference import client as inference_client
from dynlora.inference import worker as inference_worker
from dynlora.inference.client import MAX_QUESTION, InferenceChild
from dynlora.inference.worker import ABANDONED_S, IDLE_S, Answering, Streams, saved_at
from dynlora.store.measurements import Knockouts
from tests.waiting import PATIENCE_S, until

TEXT = "the film was great"
ROOT = Path(__file__).resolve().parents[2]
PARENT = """
import sys, time
from dynlora.inference.client import InferenceChild
child = InferenceChild()
child.prepare()
print(child.pid, flush=True)
time.sleep(3600)
"""
"""A server that has started its child."""


@pytest.fixture(autouse=True)
def _patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine a process takes its time to end, and is not to be killed before it has."""
    monkeypatch.setattr(inference_client, "ENDING_S", PATIENCE_S)


@pytest.fixture
def child() -> Iterator[InferenceChild]:
    """A child of the test's own."""
    child = InferenceChild()
    yield child
    child.stop()
    assert child.pid is None


def answers(child: InferenceChild, run: Path, **more: Any) -> list[dict]:
    """Ask for the answer to a text."""
    return child.ask("answers", folder=str(run), which="last", texts=[TEXT], pairs=None, mode="adapter", **more)


def ended(pid: int) -> None:
    """Wait until a process is gone."""
    until(lambda: not psutil.pid_exists(pid) or is_gone(psutil.Process(pid)), "the end of a process")


def is_gone(process: psutil.Process) -> bool:
    """Say whether a process has ended; one that nobody collects has too."""
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@pytest.mark.journey
def test_it_answers_and_refuses_and_is_there_again_after_it_was_killed_grew_idle_or_hung(
    child: InferenceChild, trained_run: Path
) -> None:
    """One after the other, as each of them costs the start of a process with torch."""
    first = answers(child, trained_run)
    assert first[0]["text"] == TEXT
    pid = child.pid
    assert pid is not None
    with pytest.raises(ConfigError, match="must be last or best"):
        child.ask("answers", folder=str(trained_run), which="worst", texts=[TEXT], pairs=None, mode="adapter")
    with pytest.raises(DynloraError, match="the request failed"):
        child.ask("nonsense")
    assert child.pid == pid, "a refused question costs nothing"

    os.kill(pid, signal.SIGKILL)
    ended(pid)
    child.idle_s = 0.2
    assert answers(child, trained_run) == first
    until(lambda: child.pid is None, "the end of a child that nobody asks")

    child.idle_s = None
    assert answers(child, trained_run) == first, "the next question starts another"
    pid = child.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    long = ["great film " * 1000] * 100  # more than a pipe holds: a child that hangs does not even read it
    with pytest.raises(DynloraError, match="did not respond within 1 s and was ended"):
        child.ask("answers", timeout_s=1, folder=str(trained_run), which="last", texts=long, pairs=None, mode="adapter")
    assert child.pid is None
    assert not psutil.pid_exists(pid)


@pytest.mark.journey
def test_it_says_when_memory_is_short(trained_run: Path) -> None:
    small = InferenceChild(memory=150_000_000)
    with pytest.raises(DynloraError, match=r"ran out of memory; stop other runs|needs more memory than is available"):
        answers(small, trained_run)
    small.stop()


@pytest.mark.parametrize(
    ("ending", "words"),
    [
        ("sys.exit('the model is upside down')", r"ended \(exit 1\): the model is upside down"),
        ("sys.exit(3)", r"ended \(exit 3\): no output"),
        ("raise MemoryError", "ran out of memory; stop other runs, or use a smaller model"),
        ("raise RuntimeError('DefaultCPUAllocator: can\\'t allocate memory')", "ran out of memory; stop"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "ended by signal 9, possibly because of too little memory; try again"),
    ],
    ids=["exit", "silent", "MemoryError", "torch", "signal"],
)
def test_a_child_that_ends_while_it_is_asked_is_said_to_have_ended_of_its_own_reason(
    ending: str, words: str, child: InferenceChild, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = f"import os, signal, sys; sys.stdin.readline(); {ending}"
    monkeypatch.setattr(inference_client, "answer_command", lambda *_: [sys.executable, "-c", script])
    with pytest.raises(DynloraError, match=words):
        child.ask("answers")
    assert child.pid is None


SHORT = "the model needs more memory than is available; stop other runs, or use fewer examples"


@pytest.mark.parametrize(
    ("error", "message", "kind"),
    [
        (MemoryError(), SHORT, ""),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 80 bytes"), SHORT, ""),
        (RuntimeError("shapes do not fit"), "the model failed: shapes do not fit", ""),
        (ConfigError("give 1 to 500"), "give 1 to 500", "ConfigError"),
        (ValueError("odd"), "the request failed: ValueError: odd", ""),
    ],
)
def test_what_fails_while_a_question_is_answered_is_one_sentence(
    error: Exception, message: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(self: Answering, folder: str) -> Any:
        self.examined[folder, "last"] = "a model"  # pyright: ignore[reportArgumentType]
        raise error

    monkeypatch.setattr(inference_worker, "OPERATIONS", {"stub": failing, "fine": lambda _: 1})
    answering = Answering()
    reply = answering.reply(json.dumps({"number": 7, "ask": "stub", "arguments": {"folder": "a run"}}))
    assert reply == {"number": 7, "ok": False, "error": {"kind": kind, "message": message}}
    may_be_broken = isinstance(error, MemoryError | RuntimeError)
    assert bool(answering.examined) != may_be_broken, "a model that failed so is let go, and its memory with it"
    assert answering.reply(json.dumps({"number": 8, "ask": "fine", "arguments": {}}))["ok"]


def test_a_question_that_is_too_long_is_refused_before_it_is_sent(child: InferenceChild, trained_run: Path) -> None:
    with pytest.raises(ConfigError, match="too long for the model's process"):
        child.ask(
            "answers", folder=str(trained_run), which="last", texts=["x" * MAX_QUESTION], pairs=None, mode="adapter"
        )


@pytest.mark.journey
def test_it_ends_when_its_parent_is_killed() -> None:
    command = [sys.executable, "-c", PARENT]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as parent:
        try:
            assert parent.stdout is not None
            child = psutil.Process(int(parent.stdout.readline()))
            assert child.ppid() == parent.pid
            assert child.cmdline()[1:5] == ["-P", "-m", "dynlora", "answer"]
            assert not is_gone(child)
        finally:
            parent.kill()
    assert parent.returncode == -signal.SIGKILL
    until(lambda: is_gone(child), "the end of a child without a parent", IDLE_S / 2)  # it ends not for being idle


def test_a_knock_out_goes_on_between_questions_and_where_nobody_reads_it(trained_run: Path, tmp_path: Path) -> None:
    now = [0.0]
    answering = Answering(streams=Streams(clock=lambda: now[0]))
    file = tmp_path / "knockout.json"
    name = answering._knockout(str(trained_run), "last", str(file), rows=16)
    answering.advance()
    question = {"texts": [TEXT], "pairs": None, "mode": "adapter"}
    assert answering._answer("answers", {"folder": str(trained_run), "which": "last", **question})
    kept = Knockouts.read(file)
    assert kept is not None
    assert len(kept.effects) == 1
    waited_for = answering.streams.begin(iter([{}, {}]))
    answering.advance()
    assert answering.streams.read(waited_for)["progress"]["done"] == 1
    progress = answering.streams.read(name)["progress"]
    assert progress == {"done": 1, "of": kept.n_modules}, "what somebody waits for goes first"
    now[0] = 2 * ABANDONED_S
    while answering.busy:
        answering.advance()
    assert answering.streams.read(waited_for)["status"] == "cancelled"
    assert answering.streams.read(name)["status"] == "done"
    kept = Knockouts.read(file)
    assert kept is not None
    assert len(kept.alone) == kept.n_modules


def test_knock_outs_of_a_run_that_cannot_be_written_go_to_the_cache(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert knockout_target(tmp_path) == knockout_file(tmp_path) == tmp_path / "knockout.json"
    assert not cache.exists(), "who only looks makes no folder"
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert knockout_target(tmp_path).is_relative_to(cache)
    assert knockout_file(tmp_path) == tmp_path / "knockout.json", "nothing is in the cache yet"
    knockout_target(tmp_path).touch()
    assert knockout_file(tmp_path) == knockout_target(tmp_path)


def test_a_run_that_was_trained_on_is_answered_by_its_new_weights(trained_run: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(trained_run, tmp_path / trained_run.name))
    answering = Answering()
    first = answering.model(str(folder), "last")
    assert answering.model(str(folder), "last") is first
    os.utime(folder / "adapter" / "state.json", ns=(1, time.time_ns() + 10**9))
    assert answering.model(str(folder), "last") is not first
    assert saved_at(tmp_path, "last") == saved_at(folder, "worst") == 0
