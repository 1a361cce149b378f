"""Queue, stop, resume and delete, with a stand-in for `dynlora resume` so that no model is needed."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dynlora import safe_files
from dynlora.errors import ConfigError, CorruptRunError, DynloraError, RunBusyError, RunNotFoundError
from dynlora.jobs import launch, queue, spawn
from dynlora.store import lifecycle
from dynlora.store.lifecycle import active_ids, annotate, mark_active, stop_requested
from dynlora.store.writer import RunWriter
from tests.jobs.helpers import helper
from tests.store.builder import finished_run, new_run
from tests.waiting import until

RESUME = """
import signal, sys, time
from pathlib import Path
from dynlora.jobs import queue as run_queue
from dynlora.store.writer import RunWriter
run_queue.resume_command = lambda run_id, root: [sys.executable, __file__, "resume", run_id, str(root)]
run_id, root = sys.argv[2], Path(sys.argv[3])
stopping = []
signal.signal(signal.SIGTERM, lambda *_: stopping.append(1))
if (root / "die").exists():
    sys.exit("no model called nothing")
while (root / "wait").exists() and not stopping:
    time.sleep(0.01)
if stopping:
    sys.exit(143)
with RunWriter.open(root / run_id, resume_from=None) as writer:
    step = 0
    while not (root / "go").exists() and not stopping:
        step += 1
        writer.progress(step)
        time.sleep(0.01)
    writer.finish("stopped" if stopping else "finished")
run_queue.start_next(root)
"""

TRAIN = """
import sys
from pathlib import Path
from dynlora.store.writer import RunWriter
config, root = Path(sys.argv[1]), sys.argv[2]
if "bad" in config.read_text():
    print("reading ...", file=sys.stderr)
    helper_job.fail(ConfigError("train.lr = bad: must be a number; give one"))
    sys.exit(2)
if "crash" in config.read_text():
    sys.exit("it fell over")
with open(root + "/calls", "a") as file:
    file.write("x")
folder = RunWriter.create(root, config_yaml=config.read_text(), meta={}, max_steps=5)
helper_job.finish({"id": folder.name}, "")
"""


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    script = tmp_path / "bin" / "dynlora"
    script.parent.mkdir()
    script.write_text(RESUME)
    monkeypatch.setattr(queue, "resume_command", lambda i, r: [sys.executable, str(script), "resume", i, str(r)])
    monkeypatch.setattr(launch, "train_command", lambda c, r: helper(TRAIN, str(c), str(r)))
    yield tmp_path
    (tmp_path / "wait").unlink(missing_ok=True)
    for child in list(spawn._children):
        child.kill()
        child.wait()
    spawn.reap()


def status(root: Path, run_id: str) -> str:
    return queue.read_status(root / run_id).status


def queued(root: Path, run_id: str) -> str:
    return new_run(root, run_id, "queued").name


def test_the_oldest_starts_and_each_starts_the_next(root: Path) -> None:
    first, second, third = queued(root, "c"), queued(root, "b"), queued(root, "a")
    assert queue.start_next(root) == first
    assert queue.start_next(root) is None
    until(lambda: status(root, first) == "running")
    assert launch.is_alive(root, first)
    assert not launch.is_alive(root, second)
    assert launch.wake(root) is None
    assert status(root, second) == "queued"
    (root / "go").touch()
    until(lambda: [status(root, run) for run in (first, second, third)] == ["finished"] * 3)
    until(lambda: active_ids(root) == [])
    assert launch.wake(root) is None


def test_the_queue_is_counted_without_opening_what_is_over(root: Path) -> None:
    assert launch.in_queue(root / "nothing") == launch.in_queue(root) == (0, 0)
    finished_run(root, 3, "over")
    queued(root, "one")
    queued(root, "two")
    mark_active(root, "gone")
    assert launch.in_queue(root) == (0, 2)
    queue.start_next(root)
    until(lambda: launch.in_queue(root) == (1, 1))
    (root / "go").touch()
    until(lambda: launch.in_queue(root) == (0, 0))


def test_a_starting_run_holds_the_queue(root: Path) -> None:
    (root / "wait").touch()
    first, second = queued(root, "one"), queued(root, "two")
    assert launch.wake(root) == first
    assert launch.wake(root) is None
    assert launch.is_alive(root, first)
    with pytest.raises(RunBusyError, match="is running"):
        launch.delete(root, first)
    (root / "wait").unlink()
    (root / "go").touch()
    until(lambda: status(root, second) == "finished")


def test_a_run_that_cannot_start_fails_and_the_next_goes_on(root: Path) -> None:
    (root / "die").touch()
    first, second = queued(root, "one"), queued(root, "two")
    assert launch.wake(root) == first
    until(lambda: not launch.is_alive(root, first))
    (root / "die").unlink()
    (root / "go").touch()
    assert launch.wake(root) == second
    first_status = queue.read_status(root / first)
    assert (first_status.status, first_status.error) == ("failed", "no model called nothing")
    until(lambda: status(root, second) == "finished")
    assert launch.resume(root, first) == "queued"
    until(lambda: status(root, first) == "finished")


def test_a_command_that_does_not_exist_fails_its_run(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue, "resume_command", lambda *_: [str(root / "nothing")])
    run = queued(root, "one")
    assert launch.wake(root) is None
    assert "could not be started" in (queue.read_status(root / run).error or "")


def test_marks_without_a_run_are_tidied(root: Path) -> None:
    mark_active(root, "old")
    mark_active(root, "fresh")
    os.utime(root / ".active" / "old", (1, 1))
    broken = new_run(root, "broken", "queued")
    (broken / "run.db").write_bytes(b"nothing")
    interrupted = new_run(root, "interrupted")
    RunWriter.open(interrupted, resume_from=None).close()
    assert launch.wake(root) is None
    assert active_ids(root) == ["fresh"]


def test_an_interrupted_run_does_not_hold_the_queue_and_is_resumed(root: Path) -> None:
    run = new_run(root, "one")
    RunWriter.open(run, resume_from=None).close()
    second = queued(root, "two")
    assert launch.wake(root) == second
    until(lambda: status(root, second) == "running")
    assert launch.resume(root, "one") == "queued"
    assert status(root, "one") == "queued"
    (root / "go").touch()
    until(lambda: status(root, "one") == "finished")
    with pytest.raises(ConfigError, match="nothing to resume"):
        launch.resume(root, "one")


def test_a_running_run_stops_and_goes_on(root: Path) -> None:
    run = queued(root, "one")
    launch.wake(root)
    until(lambda: status(root, run) == "running")
    with pytest.raises(RunBusyError, match="is running"):
        launch.resume(root, run)
    with pytest.raises(RunBusyError, match="stop it first"):
        launch.delete(root, run)
    assert launch.stop(root, run) in ("stopping", "stopped")
    until(lambda: status(root, run) == "stopped")
    with pytest.raises(ConfigError, match="is stopped"):
        launch.stop(root, run)
    (root / "go").touch()
    assert launch.resume(root, run) == "queued"
    until(lambda: status(root, run) == "finished")


def test_a_queued_run_stops_at_once_starting_or_not(root: Path) -> None:
    (root / "wait").touch()
    first, second = queued(root, "one"), queued(root, "two")
    launch.wake(root)
    until(lambda: (root / first / "launch.json").exists())
    assert launch.stop(root, second) == "stopped"
    assert launch.stop(root, first) == "stopped"
    assert not launch.is_alive(root, first)
    assert active_ids(root) == []


def test_a_run_that_is_only_recorded_is_stopped_where_it_is_trained(root: Path) -> None:
    """Nobody there looks for a request: it was called stopping for ever."""
    run = new_run(root, "one", recorded_by="a loop of its own")
    with RunWriter.open(run, resume_from=None):
        with pytest.raises(ConfigError, match="trained by a script with a loop of its own, so stop it there"):
            launch.stop(root, run.name)
        assert status(root, run.name) == "running"


def test_only_our_own_process_is_signalled(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)"])
    try:
        run = new_run(root, "one")
        start = lifecycle.start_time(other.pid)
        with monkeypatch.context() as patch:
            patch.setattr("dynlora.store.writer.this_process", lambda: (other.pid, start, lifecycle.host()))
            writer = RunWriter.open(run, resume_from=None)
        with pytest.raises(RunBusyError, match="was not ended"):
            launch.end_now(root, run.name)
        assert launch.stop(root, run.name) == "stopping", "a script that trains it looks for the request"
        assert other.poll() is None
        writer.close()
    finally:
        other.kill()
        other.wait()


def test_a_stop_is_left_for_a_process_of_another_host_unless_it_is_silent(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = new_run(root, "one")
    monkeypatch.setattr("dynlora.store.reader.host", lambda: "elsewhere")
    with pytest.raises(RunBusyError, match="give --now there"):
        launch.end_now(root, run.name)
    with monkeypatch.context() as patch:
        patch.setattr(launch, "FOREIGN_GONE_S", -1.0)
        with pytest.raises(RunBusyError, match="stop it on that host"):
            launch.stop(root, run.name)
    assert launch.stop(root, run.name) == launch.stop(root, run.name) == "stopping"
    state = launch.read_status(run)
    assert stop_requested(run, state.pid, state.process_start)


def test_a_run_of_another_host_needs_force(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = new_run(root, "one")
    monkeypatch.setattr("dynlora.store.reader.host", lambda: "elsewhere")
    with pytest.raises(RunBusyError, match="--force"):
        launch.resume(root, run.name)
    monkeypatch.setattr(queue, "start_next", lambda _: None)
    monkeypatch.setattr(launch, "start_next", lambda _: None)
    assert launch.resume(root, run.name, force=True) == "queued"


def test_a_key_launches_once(root: Path) -> None:
    (root / "go").touch()
    handle = launch.enqueue({"seed": 1, "name": "ümlaut"}, root, key="k-1")
    assert launch.enqueue({"seed": 2}, root, key="k-1") == handle
    assert (root / "calls").read_text() == "x"
    until(lambda: handle.status().status == "finished")
    assert launch.enqueue({"seed": 1}, root, key="k-2").id != handle.id


def test_a_bad_configuration_is_a_sentence_and_may_be_mended(root: Path) -> None:
    with pytest.raises(ConfigError, match=r"^train.lr = bad: must be a number; give one$"):
        launch.enqueue({"train": {"lr": "bad"}}, root, key="k")
    with pytest.raises(DynloraError, match="it fell over"):
        launch.enqueue({"a": "crash"}, root, key="k")
    with pytest.raises(ConfigError, match="key '../k'"):
        launch.enqueue({}, root, key="../k")
    (root / "go").touch()
    assert launch.enqueue({}, root, key="k").id


def test_a_check_that_hangs_is_given_up(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "train_command", lambda *_: [sys.executable, "-c", "import time; time.sleep(3600)"])
    with pytest.raises(DynloraError, match="took longer"):
        launch.enqueue({}, root, key="k", timeout_s=0.5)


def test_deleting_is_undone_by_restoring(tmp_path: Path) -> None:
    folder = finished_run(tmp_path, 3, "one")
    before = (folder / "run.db").read_bytes()
    assert launch.delete(tmp_path, "one") == tmp_path / ".trash" / "one"
    assert not folder.exists()
    assert launch.trashed(tmp_path) == ["one"]
    with pytest.raises(RunNotFoundError):
        launch.delete(tmp_path, "one")
    assert launch.restore(tmp_path, "one") == folder
    assert (folder / "run.db").read_bytes() == before
    with pytest.raises(RunNotFoundError, match="in the trash"):
        launch.restore(tmp_path, "one")
    launch.delete(tmp_path, "one")
    finished_run(tmp_path, 3, "one")
    with pytest.raises(ConfigError, match="cannot be restored"):
        launch.restore(tmp_path, "one")
    with pytest.raises(ConfigError, match="already in the trash"):
        launch.delete(tmp_path, "one")


def test_a_queued_run_leaves_and_rejoins_the_queue_with_the_trash(tmp_path: Path) -> None:
    run = queued(tmp_path, "one")
    launch.delete(tmp_path, run)
    assert active_ids(tmp_path) == []
    launch.restore(tmp_path, run)
    assert active_ids(tmp_path) == [run]


def test_a_corrupt_run_can_be_deleted_and_a_link_cannot(tmp_path: Path) -> None:
    folder = finished_run(tmp_path, 3, "one")
    (folder / "run.db").write_bytes(b"nothing")
    launch.delete(tmp_path, "one")
    outside = finished_run(tmp_path / "elsewhere", 3, "two")
    (tmp_path / "two").symlink_to(outside, target_is_directory=True)
    with pytest.raises(CorruptRunError, match="link"):
        launch.delete(tmp_path, "two")
    assert outside.exists()
    other = tmp_path / "other"
    finished_run(other, 3, "three")
    (other / ".trash").symlink_to(tmp_path, target_is_directory=True)
    with pytest.raises(CorruptRunError, match="link"):
        queue.delete(other, "three")


def test_children_inherit_what_they_need_and_no_more() -> None:
    given = {
        "HF_HOME": "a",
        "PIP_INDEX_URL": "b",
        "https_proxy": "c",
        "OMP_NUM_THREADS": "2",
        "CUDA_VISIBLE_DEVICES": "0",
        "PATH": "p",
        "DYNLORA_X": "1",
        "XDG_CACHE_HOME": "x",
        "AWS_SECRET_ACCESS_KEY": "s",
        "LD_PRELOAD": "evil.so",
        "STREAMLIT_SERVER_PORT": "1",
        "RANK": "0",
    }
    kept = spawn.child_environment(given)
    assert set(given) - set(kept) == {"AWS_SECRET_ACCESS_KEY", "LD_PRELOAD", "STREAMLIT_SERVER_PORT", "RANK"}


def test_small_files_are_read_with_care(tmp_path: Path) -> None:
    assert safe_files.read_json(tmp_path / "none") == {}
    (tmp_path / "list").write_text("[1]")
    (tmp_path / "deep").write_text("[" * 60000)
    (tmp_path / "real").write_text('{"pid": "x"}')
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert [safe_files.read_json(tmp_path / name) for name in ("list", "deep", "link")] == [{}] * 3
    assert safe_files.tail(tmp_path / "link") == ""
    assert queue.read_launch(tmp_path).pid is None
    annotate(new_run(tmp_path, "one", "queued"), state="failed", error="x")
    assert queue.start_next(tmp_path / "missing") is None
