"""A run's life on the command line: queued, started, stopped, resumed, failed, deleted."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from dynlora.jobs import launch
from dynlora.jobs.queue import QUEUE_LOCK
from dynlora.store.lifecycle import STOP_NAME, active_ids, request_stop
from dynlora.store.reader import RunReader
from dynlora.training.folder_work import staged
from dynlora.training.run import PlannedRun
from tests.command_line import document, run
from tests.store.builder import finished_run
from tests.tiny import tiny_arguments
from tests.waiting import PATIENCE_S


def test_delete_moves_to_the_trash(runs_dir: Path) -> None:
    run_id = finished_run(runs_dir, 3).name
    assert document(run(runs_dir, "delete", run_id, "--json")) == {"id": run_id, "status": "deleted"}
    assert document(run(runs_dir, "runs", "--json")) == []
    assert run(runs_dir, "show", run_id).exit_code == 2


@pytest.fixture
def still(monkeypatch: pytest.MonkeyPatch) -> None:
    """No queue starts a process: what is queued stays queued."""
    monkeypatch.setattr(launch, "start_next", lambda runs_dir: None)
    monkeypatch.setattr(launch, "wake", lambda runs_dir: None)


@pytest.mark.usefixtures("still")
def test_sweep_queues_every_combination(tiny_bert: Path, tiny_data: Path, runs_dir: Path) -> None:
    arguments = tiny_arguments(
        tiny_bert, tiny_data, "seed=0..2", "strategy.name=lora,dynamic", "adapter.targets=[query]"
    )
    queued = document(run(runs_dir, "sweep", *arguments, "--name", "sweep", "--json"))
    listed = {row["id"]: row for row in document(run(runs_dir, "runs", "--json"))}
    assert [item["id"] for item in queued] == sorted(listed, key=[item["id"] for item in queued].index)
    assert len(queued) == len(listed) == 6
    assert {row["status"] for row in listed.values()} == {"queued"}
    assert {(row["seed"], row["strategy"]) for row in listed.values()} == {
        (seed, name) for seed in range(3) for name in ("lora", "dynamic")
    }
    assert listed[queued[0]["id"]]["name"] == "sweep, lora, seed 0"
    stopped = document(run(runs_dir, "stop", queued[0]["id"], "--json"))
    assert stopped == {"id": queued[0]["id"], "status": "stopped"}


@pytest.mark.usefixtures("still")
def test_queued_run_is_started_by_resume(
    tiny_bert: Path, tiny_data: Path, runs_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Relative paths are kept absolute, so that whoever starts a queued run may stand in another folder."""
    monkeypatch.chdir(tiny_data.parent)
    arguments = tiny_arguments(tiny_bert, Path(tiny_data.name), "train.steps=5")
    queued = document(run(runs_dir, "train", *arguments, "--queue", "--json"))
    assert queued["status"] == "queued"
    summary = document(run(runs_dir, "show", queued["id"], "--json"))
    assert (summary["status"], summary["step"], summary["max_steps"], summary["metrics"]) == ("queued", 0, 5, {})
    assert "queued at step 0/5" in run(runs_dir, "show", queued["id"]).stdout
    monkeypatch.chdir(tmp_path)
    done = document(run(runs_dir, "resume", queued["id"], "--json"))
    assert (done["status"], done["step"]) == ("finished", 5)


@pytest.mark.parametrize(
    "signals",
    [
        (signal.SIGTERM, signal.SIGINT),
        pytest.param((signal.SIGTERM, signal.SIGTERM), marks=pytest.mark.torture),
        pytest.param((signal.SIGINT, signal.SIGINT), marks=pytest.mark.torture),
    ],
)
@pytest.mark.journey
def test_stopping_again_and_again_is_one_stop(
    signals: tuple[signal.Signals, ...], tiny_bert: Path, tiny_data: Path, runs_dir: Path
) -> None:
    """Asked four times within a step, by signals and by commands: the state is saved, nothing is lost."""
    process = in_the_background(tiny_bert, tiny_data, runs_dir)
    try:
        folder = wait_for_step(runs_dir, 2, process)
        process.send_signal(signal.SIGSTOP)  # so that all four come before the step is done
        for number in signals:
            process.send_signal(number)
        for _ in range(2):
            answer = document(run(runs_dir, "stop", folder.name, "--json"))
            assert answer["status"] in ("stopping", "stopped")
        stdout, stderr = process.communicate(timeout=PATIENCE_S)
    finally:
        process.kill()
    handed_over_first = {128 + number for number in (*signals, signal.SIGTERM)}
    assert process.returncode in handed_over_first, stderr.decode()
    ended = json.loads(stdout)
    assert ended["status"] == "stopped"
    assert ended["checkpoint_step"] == ended["step"], "nothing is lost"
    assert b"a second stop changes nothing" in stderr
    assert f"dynlora stop {folder.name} --now".encode() in stderr
    assert not (folder / STOP_NAME).exists()


@pytest.mark.journey
def test_a_stop_is_seen_while_the_state_is_saved_and_ending_now_says_what_is_lost(
    tiny_bert: Path, tiny_data: Path, runs_dir: Path
) -> None:
    process = in_the_background(tiny_bert, tiny_data, runs_dir)
    try:
        folder = wait_for_step(runs_dir, 2, process)
        process.send_signal(signal.SIGSTOP)
        with RunReader(folder) as reader:
            status = reader.status()
        request_stop(folder, status.pid, status.process_start)
        assert document(run(runs_dir, "show", folder.name, "--json"))["status"] == "stopping"
        assert [row["status"] for row in document(run(runs_dir, "runs", "--json"))] == ["stopping"]
        assert document(run(runs_dir, "stop", folder.name, "--json")) == {"id": folder.name, "status": "stopping"}
        assert run(runs_dir, "delete", folder.name).exit_code == 2
        assert run(runs_dir, "resume", folder.name).exit_code == 2
        request_stop(folder, status.pid, 1.0)  # another process of the same number
        assert document(run(runs_dir, "show", folder.name, "--json"))["status"] == "running"

        answer = document(run(runs_dir, "stop", folder.name, "--now", "--json"))
        process.communicate(timeout=PATIENCE_S)
    finally:
        process.kill()
        process.communicate()
    assert answer["status"] == "interrupted"
    details = document(run(runs_dir, "show", folder.name, "--json"))
    assert (details["status"], details["checkpoint_step"]) == ("interrupted", 0)
    assert answer["lost_steps"] == details["step"] >= 2
    assert run(runs_dir, "stop", folder.name, "--now").exit_code == 2


def in_the_background(model: Path, data: Path, runs_dir: Path) -> subprocess.Popen[bytes]:
    """Return a process that trains for long and keeps its only checkpoint at step 0."""
    arguments = tiny_arguments(model, data, "train.steps=4000", "strategy.name=lora", "log.eval_every=4000")
    command = [sys.executable, "-m", "dynlora", "train", *arguments, "--json", "--runs-dir", str(runs_dir)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment)


def test_interrupted_from_the_keyboard(
    tiny_bert: Path, tiny_data: Path, runs_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dynlora.engine.loop.trainer import Trainer

    backward = Trainer._backward

    def interrupted(trainer: Trainer, order: Any, index: int) -> Any:
        if index == 3:
            signal.raise_signal(signal.SIGINT)
        return backward(trainer, order, index)

    monkeypatch.setattr(Trainer, "_backward", interrupted)
    summary = document(run(runs_dir, "train", *tiny_arguments(tiny_bert, tiny_data), "--json"), code=130)
    assert (summary["status"], summary["step"]) == ("stopped", 3)


def wait_for_step(runs_dir: Path, step: int, process: subprocess.Popen[bytes]) -> Path:
    """Return the one run once its store shows a step; fail when the process ends before."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline and process.poll() is None:
        for folder in runs_dir.glob("2*"):
            with RunReader(folder) as reader:
                if reader.status().step >= step:
                    return folder
        time.sleep(0.02)
    pytest.fail(f"no step {step} was seen; {process.poll()=}")


def test_a_failing_run_exits_with_1(
    tiny_bert: Path, tiny_data: Path, runs_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dynlora.engine.loop.trainer import Trainer

    def fail(*_: Any) -> Any:
        raise RuntimeError("the disk is on fire")

    monkeypatch.setattr(Trainer, "_backward", fail)
    failure = document(run(runs_dir, "train", *tiny_arguments(tiny_bert, tiny_data), "--json"), code=1)
    assert (failure["status"], failure["step"]) == ("failed", 0)
    assert "RuntimeError: the disk is on fire" in failure["error"]
    monkeypatch.undo()
    assert document(run(runs_dir, "resume", failure["id"], "--json"))["status"] == "finished"


QUEUED = (
    "train --queue",
    "sweep",
    "compress RUN --rows 20 --budget 0.5 --recover 2",
    "recycle RUN --queue --episodes 2",
)
"""Commands that put runs into the queue; the settings of a tiny run follow those that take them."""


def queueing(command: str, model: Path, data: Path, folder: Path) -> list[str]:
    """Return the arguments of a command of `QUEUED`."""
    words = [folder.name if word == "RUN" else word for word in command.split()]
    return [*words, *(tiny_arguments(model, data, "seed=1") if words[0] in ("train", "sweep") else [])]


def run_folders(runs_dir: Path) -> set[str]:
    return {path.parent.name for path in runs_dir.glob("*/run.db")} | {path.name for path in runs_dir.glob(".new-*")}


@pytest.mark.parametrize("command", QUEUED)
def test_a_run_that_the_queue_cannot_take_is_not_made(
    command: str, tiny_bert: Path, tiny_data: Path, trained_run: Path, runs_dir: Path
) -> None:
    """Made before the queue was looked at, it was listed as queued for ever, and nothing started it."""
    shutil.copytree(trained_run, runs_dir / trained_run.name)
    (runs_dir / QUEUE_LOCK).mkdir()
    result = run(runs_dir, *queueing(command, tiny_bert, tiny_data, trained_run))
    assert result.exit_code == 2, result.output
    assert f"{QUEUE_LOCK} is not a regular file and cannot be used as a lock; remove it" in result.stderr
    assert run_folders(runs_dir) == {trained_run.name}


@pytest.mark.parametrize("command", QUEUED[:2])
def test_what_killed_creations_left_goes_when_a_run_is_made(
    command: str, tiny_bert: Path, tiny_data: Path, runs_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page swept it at a launch; where runs came from the command line alone it stayed."""
    monkeypatch.setattr(launch, "wake", lambda _: None)
    old, young = runs_dir / ".new-a-0badcafe", runs_dir / ".new-b-0badcafe"
    for leftover in (old, young):
        leftover.mkdir()
        (leftover / "run.db").touch()
    os.utime(old, (1, 1))
    result = run(runs_dir, *queueing(command, tiny_bert, tiny_data, runs_dir))
    assert result.exit_code == 0, result.output
    assert (old.exists(), young.exists()) == (False, True)


def test_of_a_sweep_that_breaks_in_the_middle_no_run_is_left(
    tiny_bert: Path, tiny_data: Path, runs_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Path] = []

    def create(planned: PlannedRun, runs_dir: Path, state: str) -> Path:
        if len(made) == 2:
            raise OSError(errno.ENOSPC, "No space left on device", str(runs_dir))
        made.append(whole(planned, runs_dir, state))
        return made[-1]

    whole = PlannedRun.create
    monkeypatch.setattr(PlannedRun, "create", create)
    result = run(runs_dir, "sweep", *tiny_arguments(tiny_bert, tiny_data, "seed=0..3"))
    assert (result.exit_code, len(made)) == (2, 2)
    assert f"{runs_dir} cannot be written (No space left on device); free some space" in result.stderr
    assert run_folders(runs_dir) == set()
    assert active_ids(runs_dir) == []


HOLD = """
import sys, time
from pathlib import Path
from dynlora.training.folder_work import staged
with staged(Path(sys.argv[1])) as staging:
    (staging / "half").touch()
    print(staging, flush=True)
    while True:  # a signal that comes just before a long sleep would be acted on after it
        time.sleep(0.05)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_what_a_killed_export_leaves_is_gone_after_the_next(number: signal.Signals, tmp_path: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path / "e")], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    left = Path(child.stdout.readline().strip())
    with staged(tmp_path / "mine"):
        assert left.is_dir(), "that of a process that lives stays"
    child.send_signal(number)
    child.communicate()
    assert left.exists() == (number is signal.SIGKILL)
    with staged(tmp_path / "again"):
        assert not left.exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again", "mine"]
