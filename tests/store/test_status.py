"""Status is derived from the process, not believed."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from dynlora.jobs import launch
from dynlora.store import lifecycle
from dynlora.store.reader import RunReader
from dynlora.store.rows import Status
from dynlora.store.summary import run_summary
from dynlora.store.writer import RunWriter
from tests.store.builder import define, new_run, record
from tests.waiting import PATIENCE_S, until

CHILD = """
import sys, time
from pathlib import Path
from dynlora.store.writer import RunWriter
from tests.store.builder import define, record
writer = RunWriter.open(Path(sys.argv[1]), resume_from=None)
define(writer)
step = 0
while True:
    record(writer, step + 1, step + 1)
    step += 1
    time.sleep(0.001)
"""


def status(folder: Path) -> Status:
    with RunReader(folder) as reader:
        return reader.status()


def store(folder: Path, **columns: object) -> None:
    connection = sqlite3.connect(folder / "run.db")
    for name, value in columns.items():
        connection.execute(f"UPDATE status SET {name} = ?", (value,))
    connection.commit()
    connection.close()


def start(folder: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", CHILD, str(folder)])


def test_a_run_is_read_while_another_process_writes_it(tmp_path: Path) -> None:
    folder = new_run(tmp_path)
    child = start(folder)
    try:
        until(lambda: status(folder).step > 0)
        last, key = 0, (0, 0, "", 0)
        while last < 600:
            with RunReader(folder) as reader:
                before, key = key, reader.version_key()
                state = reader.status()
                steps, _ = reader.signal("importance")
            assert key[:2] >= before[:2]
            assert state.step >= key[1]
            assert state.status == "running"
            assert state.step >= last
            assert steps.tolist() == list(range(1, len(steps) + 1))
            assert len(steps) >= state.step
            last = state.step
            time.sleep(0.05)
    finally:
        child.kill()
        child.wait()
    assert status(folder).status == "interrupted"
    with RunReader(folder) as reader:
        rows = len(reader.signal("importance")[0])
    assert rows >= last
    with RunWriter.open(folder, resume_from=last) as writer:
        record(writer, last + 1, last + 3)
        writer.finish("finished")
    with RunReader(folder) as reader:
        assert reader.signal("importance")[0].tolist() == list(range(1, last + 4))


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no zombies")
def test_a_zombie_is_gone(tmp_path: Path) -> None:
    folder = new_run(tmp_path)
    child = start(folder)
    try:
        until(lambda: status(folder).step > 0)
        child.kill()
        until(lambda: psutil.Process(child.pid).status() == psutil.STATUS_ZOMBIE)
        assert status(folder).status == "interrupted"
    finally:
        child.kill()
        child.wait()


def test_rows_become_visible_while_a_step_takes_long(tmp_path: Path) -> None:
    folder = new_run(tmp_path)
    with RunWriter.open(folder, resume_from=None) as writer:
        define(writer)
        record(writer, 1, 7)
        until(lambda: status(folder).step == 7)
        until(lambda: not writer._pending)


def test_a_silent_process_is_stalled_not_interrupted(tmp_path: Path) -> None:
    folder = new_run(tmp_path)
    assert status(folder).stalled_s is None
    store(folder, heartbeat=time.time() - 100)
    state = status(folder)
    assert state.status == "running"
    assert state.stalled_s is not None
    assert 99 < state.stalled_s < 99 + PATIENCE_S


def test_a_reused_pid_is_not_the_run(tmp_path: Path) -> None:
    folder = new_run(tmp_path)
    store(folder, process_start=psutil.Process().create_time() - 60)
    assert status(folder).status == "interrupted"
    store(folder, pid=2**40)
    assert status(folder).status == "interrupted"


def test_a_run_of_another_host_shows_the_age_of_its_heartbeat(tmp_path: Path) -> None:
    folder = new_run(tmp_path)
    store(folder, host="elsewhere", pid=1, heartbeat=time.time() - 50)
    state = status(folder)
    assert (state.status, state.other_host, state.stalled_s) == ("running", True, None)
    assert state.heartbeat_age_s == pytest.approx(50, abs=5)


def test_processes_are_told_apart() -> None:
    me = lifecycle.this_process()
    assert me.pid == os.getpid()
    assert lifecycle.is_alive(me.pid, me.start)
    assert not lifecycle.is_alive(me.pid, None)
    assert not lifecycle.is_alive(-1, 0.0)
    assert lifecycle.command_line(me.pid)
    assert lifecycle.command_line(2**22 + 5) == []


@pytest.mark.parametrize(
    "command",
    [
        ["/venv/bin/python", "-m", "dynlora", "resume", "a", "--runs-dir", "/r"],
        ["python3.11", "-u", "-m", "dynlora", "train"],
        ["/usr/bin/python3", "/venv/bin/dynlora", "train", "--config", "a.yaml"],
        ["C:\\Python\\python.exe", "/venv/Scripts/dynlora.exe", "resume", "a"],
        ["/venv/bin/dynlora", "resume", "a"],
        ["/venv/bin/dynlora", "merge", "a", "b"],
    ],
)
def test_a_process_that_trains_is_known_by_its_command(command: list[str]) -> None:
    assert lifecycle.is_ours(command, launch._working_commands())


@pytest.mark.parametrize(
    "command",
    [
        [],
        ["python", "-m", "dynlora"],
        ["python", "-m", "dynlora", "ui"],
        ["vim", "/src/dynlora/train.py"],
        ["vim", "dynlora", "train"],
        ["grep", "-m", "1", "dynlora", "train"],
        ["python", "/home/dynlora/other.py", "train"],
        ["python", "other.py", "dynlora", "train"],
        ["python", "-m", "dynlora.cli.main", "train"],
        ["bash", "-c", "dynlora train"],
    ],
)
def test_a_process_that_only_names_dynlora_is_not_taken_for_one_of_ours(command: list[str]) -> None:
    """Any command line with the letters in it passed: an editor with a file of that name would have been ended."""
    assert not lifecycle.is_ours(command, launch._working_commands())


def test_a_process_is_found_by_what_it_runs() -> None:
    command = [sys.executable, "-c", "import time; time.sleep(3600)", "a mark of its own"]
    assert lifecycle.find(command) is None
    other = subprocess.Popen(command)
    try:
        until(
            lambda: lifecycle.command_line(other.pid) == command, "the child's command line"
        )  # empty while it is loaded
        start = lifecycle.start_time(other.pid)
        assert lifecycle.find(["another python", *command[1:]]) == (other.pid, start)
    finally:
        other.kill()
        other.wait()
    assert lifecycle.find(command) is None


def test_what_a_run_does_is_there_while_it_runs_and_gone_when_it_ends(tmp_path: Path) -> None:
    folder = new_run(tmp_path)
    with RunWriter.open(folder, resume_from=None) as writer:
        assert run_summary(folder).activity is None
        writer.activity("evaluating: answer 5 of 16", 90.0)
        writer.commit()
        activity = run_summary(folder).activity
        assert activity is not None
        assert activity["phase"] == "evaluating: answer 5 of 16"
        assert 80.0 < activity["remaining_s"] <= 90.0
        writer.finish("finished")
    with RunReader(folder) as reader:
        assert "activity" not in reader.meta()
