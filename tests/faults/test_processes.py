"""Processes that stop, die or meet: what is shown is what is, and one run trains at a time whoever looks after it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dynlora.errors import RunBusyError
from dynlora.jobs import launch
from dynlora.jobs import queue as run_queue
from dynlora.store import reader
from dynlora.store.writer import RunWriter
from tests.command_line import run as command
from tests.jobs.test_launch import queued, status
from tests.jobs.test_launch import root as root
from tests.store.builder import new_run
from tests.waiting import until

SIGNALS = pytest.mark.skipif(
    not hasattr(signal, "SIGSTOP"), reason="a process is suspended or killed by a signal of POSIX"
)

HOLDING = """
import sys, time
from pathlib import Path
from dynlora.jobs import queue as run_queue
from dynlora.jobs.spawn import locked
from dynlora.store.writer import RunWriter
root, what = Path(sys.argv[1]), sys.argv[2]
with locked(root / run_queue.QUEUE_LOCK, 5) if what == "queue" else RunWriter.open(root / what, resume_from=None):
    print("held", flush=True)
    time.sleep(600)
"""

DASHBOARD = """
import sys, time
from pathlib import Path
from dynlora.jobs import launch
from dynlora.jobs import queue as run_queue
root, script = Path(sys.argv[1]), sys.argv[2]
run_queue.resume_command = lambda run_id, runs: [sys.executable, script, "resume", run_id, str(runs)]
print("open", flush=True)
while not (root / "over").exists():
    launch.wake(root)
    launch.in_queue(root)
    time.sleep(0.005)
"""

JOURNALLED = """
import os, sys, time
from pathlib import Path
from dynlora.store.writer import RunWriter
run_id, root = sys.argv[2], Path(sys.argv[3])
def note(what):
    with open(root / "journal", "a") as file:
        file.write(f"{what} {run_id}\\n")
with RunWriter.open(root / run_id, resume_from=None) as writer:
    note("begin")
    for step in range(1, 6):
        writer.progress(step)
        time.sleep(0.02)
    note("end")
    writer.finish("finished")
"""


@contextmanager
def started(script: str, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a script in a process of its own that has said its first word, and end it."""
    with subprocess.Popen([sys.executable, "-c", script, *arguments], stdout=subprocess.PIPE) as child:
        try:
            assert child.stdout is not None
            assert child.stdout.readline()
            yield child
        finally:
            child.kill()


def trained_by(root: Path, run_id: str) -> int:
    """Return the process that trains a run."""
    pid = run_queue.read_launch(root / run_id).pid
    assert pid is not None
    return pid


@SIGNALS
def test_a_suspended_trainer_is_shown_as_stalled_and_can_be_stopped(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = queued(root, "one")
    run_queue.start_next(root)
    until(lambda: status(root, first) == "running")
    monkeypatch.setattr(reader, "STALLED_AFTER_S", 0.2)
    until(lambda: run_queue.read_status(root / first).stalled_s is None)
    os.kill(trained_by(root, first), signal.SIGSTOP)
    until(lambda: run_queue.read_status(root / first).stalled_s is not None)
    assert launch.wake(root) is None, "it is not over: nothing starts beside it"
    launch.stop(root, first)
    until(lambda: status(root, first) == "stopped")


@SIGNALS
def test_a_killed_trainer_is_interrupted_and_the_next_one_starts(root: Path) -> None:
    first, second = queued(root, "one"), queued(root, "two")
    run_queue.start_next(root)
    until(lambda: status(root, first) == "running")
    os.kill(trained_by(root, first), signal.SIGKILL)
    until(lambda: status(root, first) == "interrupted")
    assert launch.wake(root) == second
    (root / "go").touch()
    until(lambda: status(root, second) == "finished")


def test_whoever_dies_with_the_queue_in_hand_lets_it_go(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = queued(root, "one")
    with started(HOLDING, str(root), "queue") as holder:
        with monkeypatch.context() as patch:
            patch.setattr(run_queue, "LOCK_WAIT_S", 0.1)
            with pytest.raises(RunBusyError):
                run_queue.start_next(root)
        holder.kill()
        holder.wait()
        assert run_queue.start_next(root) == first
    (root / "go").touch()
    until(lambda: status(root, first) == "finished")


def test_a_second_process_may_not_write_a_run(tmp_path: Path) -> None:
    folder = new_run(tmp_path, "one", "running")
    with started(HOLDING, str(tmp_path), "one") as holder:
        with pytest.raises(RunBusyError):
            RunWriter.open(folder, resume_from=None)
        refused = command(tmp_path, "resume", "one")
        assert refused.exit_code in (1, 2)
        assert "one" in refused.stderr
        assert "Traceback" not in refused.stderr
        holder.kill()
        holder.wait()
    with RunWriter.open(folder, resume_from=None):
        pass


@pytest.mark.journey
def test_two_dashboards_on_one_folder_start_every_run_once_and_one_at_a_time(tmp_path: Path) -> None:
    script = tmp_path / "bin" / "dynlora"
    script.parent.mkdir()
    script.write_text(JOURNALLED)
    runs = [queued(tmp_path, f"run-{number}") for number in range(6)]
    with started(DASHBOARD, str(tmp_path), str(script)), started(DASHBOARD, str(tmp_path), str(script)):
        until(lambda: [status(tmp_path, run) for run in runs] == ["finished"] * len(runs))
        (tmp_path / "over").touch()
    lines = (tmp_path / "journal").read_text().split("\n")[:-1]
    assert lines == [f"{what} {run}" for run in runs for what in ("begin", "end")]
