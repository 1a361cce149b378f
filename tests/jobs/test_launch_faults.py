"""A start that goes wrong half way: no run is trained twice, none holds the queue, no stranger is signalled."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dynlora import safe_files
from dynlora.errors import ConfigError, CorruptRunError, DynloraError, RunBusyError, StorageError
from dynlora.inference.client import InferenceChild
from dynlora.jobs import launch, spawn, uploads
from dynlora.jobs import queue as run_queue
from dynlora.safe_files import write_text
from dynlora.store import lifecycle, record
from dynlora.store.summary import COPIED_NAME, Copied
from dynlora.store.writer import RunWriter
from tests.jobs.test_launch import queued, status
from tests.jobs.test_launch import root as root
from tests.store.builder import new_run
from tests.waiting import PATIENCE_S, until

SLEEP = [sys.executable, "-c", "import time; time.sleep(3600)", "dynlora", "resume"]


class KilledHere(BaseException):
    """Stands for the end of the process that was starting a run."""


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    """A process that lives, with a command line like one of ours."""
    child = subprocess.Popen(SLEEP)
    yield child
    child.kill()
    child.wait()


def test_a_log_that_is_a_pipe_fails_its_run_and_not_the_queue(root: Path) -> None:
    """Opening it to write waited for a reader for ever, with the lock of the queue held."""
    first, second = queued(root, "one"), queued(root, "two")
    (root / first / "train.log").unlink()
    os.mkfifo(root / first / "train.log")
    started: list[str | None] = []
    thread = threading.Thread(target=lambda: started.append(run_queue.start_next(root)), daemon=True)
    thread.start()
    thread.join(PATIENCE_S)
    assert started == [second]
    first_status = run_queue.read_status(root / first)
    assert first_status.status == "failed"
    assert first_status.error == "its process could not be started: train.log is not a regular file; remove it"


@pytest.mark.parametrize("kind", ["folder", "read pipe", "link"])
def test_a_log_that_is_no_plain_file_is_refused(kind: str, tmp_path: Path) -> None:
    log, reader = tmp_path / "train.log", None
    if kind == "folder":
        log.mkdir()
    elif kind == "link":
        log.symlink_to(tmp_path / "elsewhere")
    else:
        os.mkfifo(log)
        reader = os.open(log, os.O_RDONLY | os.O_NONBLOCK)
    with pytest.raises(CorruptRunError, match=r"train.log is not a regular file"):
        spawn.spawn_detached(SLEEP, log)
    assert not (tmp_path / "elsewhere").exists()
    if reader is not None:
        os.close(reader)


def test_a_log_is_waited_for_like_any_file(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "import os; print(os.get_blocking(1))"]
    pid = spawn.spawn_detached(command, tmp_path / "train.log")
    next(child for child in spawn._children if child.pid == pid).wait()
    assert safe_files.tail(tmp_path / "train.log") == "True"


def failing_at(count: int, error: BaseException) -> Any:
    """Return a `write_text` whose call of that number fails."""
    calls: list[Path] = []

    def write(path: Path, text: str) -> None:
        calls.append(path)
        if len(calls) == count:
            raise error
        write_text(path, text)

    return write


def test_a_start_that_cannot_be_written_down_leaves_no_process(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run counted as failed while its process trained, and the next run was started beside it."""
    (root / "wait").touch()
    first, second = queued(root, "one"), queued(root, "two")
    with monkeypatch.context() as patch:
        patch.setattr(record, "write_text", failing_at(2, OSError(errno.ENOSPC, "No space left on device")))
        assert run_queue.start_next(root) == second
    assert lifecycle.find(run_queue.resume_command(first, root)) is None
    assert lifecycle.find(run_queue.resume_command(second, root)) is not None
    assert status(root, first) == "failed"
    assert "No space left" in (run_queue.read_status(root / first).error or "")


def test_nothing_is_started_that_could_not_be_written_down_at_all(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = queued(root, "one")
    monkeypatch.setattr(record, "write_text", failing_at(1, OSError(errno.ENOSPC, "No space left on device")))
    monkeypatch.setattr(run_queue, "spawn_detached", lambda *_: pytest.fail("it was started"))
    assert run_queue.start_next(root) is None
    assert status(root, run) == "failed"


def test_who_dies_between_starting_and_writing_down_does_not_start_the_run_twice(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / "wait").touch()
    run, second = queued(root, "one"), queued(root, "two")
    with monkeypatch.context() as patch:
        patch.setattr(record, "write_text", failing_at(2, KilledHere()))
        patch.setattr(run_queue, "end_child", lambda _: None)
        with pytest.raises(KilledHere):
            run_queue.start_next(root)
    assert json.loads((root / run / "launch.json").read_text())["pid"] is None
    assert len(spawn._children) == 1
    assert run_queue.start_next(root) is None
    assert len(spawn._children) == 1
    assert launch.is_alive(root, run)
    with pytest.raises(RunBusyError, match="is running"):
        launch.delete(root, run)
    assert launch.stop(root, run) == "stopped"
    spawn._children[0].wait(PATIENCE_S)
    assert run_queue.start_next(root) == second


def test_who_dies_before_starting_leaves_the_run_in_the_queue(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = queued(root, "one")

    def killed(*_: Any) -> int:
        raise KilledHere

    with monkeypatch.context() as patch:
        patch.setattr(run_queue, "spawn_detached", killed)
        with pytest.raises(KilledHere):
            run_queue.start_next(root)
    assert not launch.is_alive(root, run)
    assert status(root, run) == "queued"
    (root / "go").touch()
    assert run_queue.start_next(root) == run
    until(lambda: status(root, run) == "finished")


def test_a_launch_file_that_is_a_folder_is_a_sentence(root: Path) -> None:
    run = new_run(root, "one")
    RunWriter.open(run, resume_from=None).finish("stopped")
    (run / "launch.json").mkdir()
    with pytest.raises(CorruptRunError, match=r"run one: launch.json cannot be removed .*: remove it"):
        launch.resume(root, "one")
    assert status(root, "one") == "stopped"


@pytest.mark.parametrize("state", ["running", "queued"])
def test_a_process_that_took_over_the_pid_is_not_signalled(
    state: str, root: Path, sleeper: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It lives and looks like one of dynlora's, but started at another time than the run's did."""
    start = (lifecycle.start_time(sleeper.pid) or 0.0) - 2 * lifecycle.START_TOLERANCE_S
    run = new_run(root, "one", state)
    with monkeypatch.context() as patch:
        patch.setattr(lifecycle, "is_ours", lambda *_: True)
        patch.setattr(os, "kill", lambda *_: pytest.fail("it was signalled"))
        if state == "queued":
            write_text(run / "launch.json", json.dumps({"pid": sleeper.pid, "start_time": start, "opened": 0}))
            assert launch.stop(root, "one") == "stopped"
        else:
            patch.setattr("dynlora.store.writer.this_process", lambda: (sleeper.pid, start, lifecycle.host()))
            writer = RunWriter.open(run, resume_from=None)
            with pytest.raises(ConfigError, match="only a queued or running run can be stopped"):
                launch.stop(root, "one")
            launch._signal("one", sleeper.pid, start, signal.SIGTERM)
            writer.close()
    assert sleeper.poll() is None


DAY = 86_400


def aged(path: Path, seconds: float) -> Path:
    """Make a file or, without an ending, a folder of that age."""
    path.mkdir(parents=True) if not path.suffix else path.write_text("a")
    os.utime(path, (lifecycle.now() - seconds, lifecycle.now() - seconds))
    return path


def test_what_killed_starts_left_goes_after_a_day(root: Path) -> None:
    incoming = root / ".incoming"
    incoming.mkdir()
    (root / "go").touch()
    old = [root / ".new-a-0badcafe", incoming / "a.yaml", incoming / ".a.yaml.1234"]
    young = [root / ".new-b-0badcafe", incoming / "b.yaml", incoming / "old.json", incoming / "old.lock"]
    precious = aged(root / "elsewhere", 0) / "precious.txt"
    for path in old:
        aged(path, DAY + 60)
    for path in young:
        aged(path, 60 if path.stem != "old" else DAY + 60)
    precious.write_text("mine")
    link = root / ".new-link"
    link.symlink_to(precious.parent, target_is_directory=True)
    os.utime(link, (1, 1), follow_symlinks=False)
    launch.enqueue({"seed": 1}, root, key="k")
    assert not [path for path in old if path.exists()]
    assert [path for path in young if path.exists()] == young
    assert not link.is_symlink()
    assert precious.read_text() == "mine"


@pytest.mark.parametrize("name", ["k.yaml", "k.json"])
def test_a_full_disk_is_a_sentence_where_a_run_is_started(
    name: str, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An OSError reached the page as a trace."""
    (root / "go").touch()

    def refused(path: Path, text: str) -> None:
        if path.name == name:
            raise OSError(errno.ENOSPC, "No space left on device")
        write_text(path, text)

    for module in (launch, record):
        monkeypatch.setattr(module, "write_text", refused)
    with pytest.raises(StorageError, match="cannot be written .No space left on device."):
        launch.enqueue({"seed": 1}, root, key="k")


def test_a_full_disk_is_a_sentence_where_a_run_is_checked_and_a_file_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(launch, "write_text", refused)
    with pytest.raises(StorageError, match="the configuration to check cannot be written"):
        launch.preflight({"seed": 1}, tmp_path)
    monkeypatch.setattr(uploads, "write_bytes", refused)
    with pytest.raises(StorageError, match=r"upload a.csv cannot be written \(No space left on device\)"):
        uploads.keep(tmp_path, "a.csv", b"text,label\n")
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match="the runs folder .* cannot be written"):
        uploads.keep(tmp_path / "file" / "runs", "a.csv", b"text,label\n")


def test_a_child_that_cannot_be_started_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object, **__: object) -> None:
        raise OSError(errno.EAGAIN, "Resource temporarily unavailable")

    monkeypatch.setattr(subprocess, "Popen", refused)
    with pytest.raises(DynloraError, match=r"the model's process cannot be started \(Resource temporarily"):
        InferenceChild().ask("anything")
    with pytest.raises(DynloraError, match="the configuration was not checked: .* cannot be started"):
        launch.preflight({"seed": 1}, tmp_path)


@pytest.mark.parametrize("kind", [None, "decode", "recycle"])
def test_a_fetched_run_without_a_checkpoint_is_resumed_where_its_kind_needs_none(kind: str | None, root: Path) -> None:
    folder = new_run(root, "one", **({} if kind is None else {"kind": kind}))
    Copied(url="ssh://host/runs", revision="1", fingerprint="2").write(folder / COPIED_NAME)
    with RunWriter.open(folder, resume_from=None) as writer:
        writer.finish("stopped")
    if kind != "decode":
        with pytest.raises(ConfigError, match="was fetched from ssh://host/runs without a checkpoint"):
            launch.resume(root, folder.name)
        assert status(root, folder.name) == "stopped"
        return
    assert launch.resume(root, folder.name) == "queued"
    (root / "go").touch()
    until(lambda: status(root, folder.name) == "finished")
