"""What a worker does with a run, whatever was left of it; a stand-in trains, so that no model is needed."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import psutil
import pytest

import dynlora
from dynlora.errors import ConfigError, RunNotFoundError
from dynlora.integrations import cluster, die_with_parent
from dynlora.store.lifecycle import annotate, request_stop
from dynlora.store.reader import RunReader
from dynlora.store.rows import Status
from tests.store.builder import finished_run, new_run
from tests.tiny import tiny_config
from tests.waiting import PATIENCE_S, until

TRAIN = """
import json, os, sys, time
from pathlib import Path
from dynlora.store.writer import RunWriter
root, run_id, *more = Path(sys.argv[1]), *sys.argv[2:]
if (root / "refuse").exists():
    sys.exit("Error: no model called nothing")
NAMES = ("OMP_NUM_THREADS", "DYNLORA_QUEUE", "CUDA_VISIBLE_DEVICES")
with open(root / "calls", "a") as file:
    file.write(json.dumps([more, {name: os.environ.get(name) for name in NAMES}]))
while (root / "wait").exists():
    time.sleep(0.01)
with RunWriter.open(root / run_id, resume_from=None) as writer:
    writer.progress(5)
    writer.finish("finished")
"""


@pytest.fixture
def root(runs_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(die_with_parent, "command", lambda run, root: [sys.executable, "-c", TRAIN, str(root), run])
    monkeypatch.setattr(cluster, "LOOK_S", 0.02)
    return runs_dir


def status_of(folder: Path) -> Status:
    with RunReader(folder) as reader:
        return reader.status()


def queued_run(root: Path, name: str) -> Path:
    return new_run(root, name, state="queued")


def test_a_queued_run_is_trained_with_its_threads_and_starts_no_other(root: Path) -> None:
    folder = queued_run(root, "one")
    assert cluster.train_run(str(root), folder.name, 3) == "finished"
    given = {"OMP_NUM_THREADS": "3", "DYNLORA_QUEUE": "0", "CUDA_VISIBLE_DEVICES": ""}
    assert json.loads((root / "calls").read_text()) == [[], given]
    assert "CUDA_VISIBLE_DEVICES" not in cluster.environment(1, 0.5) or os.environ.get("CUDA_VISIBLE_DEVICES")


@pytest.mark.parametrize("state", ["finished", "stopped", "failed"])
def test_a_run_that_is_over_stays_as_it_is(root: Path, state: str) -> None:
    folder = finished_run(root, 3, "one")
    if state != "finished":
        annotate(folder, state=state)
    assert cluster.train_run(str(root), folder.name, 1) == state
    assert not (root / "calls").exists()


def test_a_run_of_a_silent_machine_is_taken_over(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = new_run(root, "one")
    connection = sqlite3.connect(folder / "run.db")
    connection.execute("UPDATE status SET state = 'running', host = 'elsewhere', pid = 1, process_start = 1.0")
    connection.commit()
    connection.close()
    monkeypatch.setattr(cluster, "SILENT_S", 0.2)
    assert cluster.train_run(str(root), folder.name, 1) == "finished"
    assert json.loads((root / "calls").read_text())[0] == ["--force"]


def test_a_run_that_trains_here_is_waited_for(root: Path) -> None:
    from dynlora.store.writer import RunWriter

    folder = new_run(root, "one")
    writer = RunWriter.open(folder, resume_from=None)
    outcomes: list[str] = []
    thread = threading.Thread(target=lambda: outcomes.append(cluster.train_run(str(root), folder.name, 1)))
    thread.start()
    writer.progress(1)
    assert outcomes == []
    writer.finish("finished")
    thread.join()
    assert outcomes == ["finished"]
    assert not (root / "calls").exists()


def test_a_stop_reaches_a_process_that_has_not_opened_the_run_yet(root: Path) -> None:
    folder = queued_run(root, "one")
    (root / "wait").touch()
    outcomes: list[str] = []
    thread = threading.Thread(target=lambda: outcomes.append(cluster.train_run(str(root), folder.name, 1)))
    thread.start()
    until(lambda: (root / "calls").exists(), "the process is on its way")
    annotate(folder, state="stopped")
    thread.join()
    assert outcomes == ["stopped"]


def test_a_run_that_is_refused_has_failed_with_the_sentence(root: Path) -> None:
    folder = queued_run(root, "one")
    (root / "refuse").touch()
    assert cluster.train_run(str(root), folder.name, 1) == "failed"
    assert "no model called nothing" in (status_of(folder).error or "")


def test_a_node_without_the_folder_says_so(tmp_path: Path, root: Path) -> None:
    with pytest.raises(ConfigError, match="share it"):
        cluster.train_run(str(tmp_path / "nowhere"), "one", 1)
    with pytest.raises(RunNotFoundError):
        cluster.train_run(str(root), "one", 1)


TIED = """
import os, sys
from pathlib import Path
from dynlora.integrations import die_with_parent
WAITS = "print('ready', flush=True); import time; time.sleep(3600)"
die_with_parent.resume_command = lambda *_: [sys.executable, "-c", WAITS]
die_with_parent.main(int(sys.argv[1]), "one", Path("."))
"""
PARENT = """
import os, subprocess, sys
child = subprocess.Popen([sys.executable, "-c", sys.argv[1], str(os.getpid())])
print(child.pid, flush=True)
child.wait()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's death signal is one of Linux")
def test_what_trains_ends_with_a_worker_that_is_killed() -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT, TIED], stdout=subprocess.PIPE, text=True) as worker:
        assert worker.stdout is not None
        child = int(worker.stdout.readline())
        assert worker.stdout.readline() == "ready\n"
        assert psutil.pid_exists(child)
        os.kill(worker.pid, signal.SIGKILL)
        until(lambda: not alive(child), "the child has ended")


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's death signal is one of Linux")
def test_a_child_whose_parent_ended_first_trains_nothing() -> None:
    done = subprocess.run([sys.executable, "-c", TIED, "1"], capture_output=True, timeout=PATIENCE_S, check=False)
    assert (done.returncode, done.stdout) == (1, b"")


def test_a_process_finds_a_stop_that_another_machine_left(tiny_bert: Path, tiny_data: Path, runs_dir: Path) -> None:
    def ask() -> None:
        until(lambda: [path for path in runs_dir.glob("[0-9]*/run.db") if status_of(path.parent).step > 3], "it trains")
        (folder,) = (path.parent for path in runs_dir.glob("[0-9]*/run.db"))
        status = status_of(folder)
        request_stop(folder, status.pid, status.process_start)  # the file alone, as from another machine

    asking = threading.Thread(target=ask)
    asking.start()
    run = dynlora.train(tiny_config(tiny_bert, tiny_data, train__steps=100_000), runs_dir, progress=False)
    asking.join()
    status = status_of(run.folder)
    assert status.status == "stopped"
    assert 3 < status.step < 100_000
    assert not (run.folder / "stop.json").exists()
