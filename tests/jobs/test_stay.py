"""A run that was checked and is next is trained by the process that checked it: model and data are loaded once."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from dynlora.cli.main import main
from dynlora.config import parse_config
from dynlora.jobs import launch
from dynlora.jobs import queue as run_queue
from dynlora.jobs.spawn import run_or_leave
from dynlora.store import lifecycle
from dynlora.training import inputs
from dynlora.training.run import plan
from tests.command_line import document, run
from tests.tiny import tiny_arguments, tiny_values
from tests.waiting import until


def test_a_launch_loads_model_and_data_once_and_trains_to_the_end(
    tiny_bert: Path, tiny_data: Path, runs_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In this process: what was loaded for the check is what is trained, to the same numbers as `dynlora train`."""
    loads: list[str] = []
    real = inputs.load_base
    monkeypatch.setattr(inputs, "load_base", lambda *a, **k: (loads.append("model"), real(*a, **k))[1])
    monkeypatch.setattr("dynlora.cli.commands.log_from_here", lambda log: None)
    arguments = ["train", *tiny_arguments(tiny_bert, tiny_data, "train.steps=6"), "--runs-dir", str(runs_dir)]
    staying = CliRunner().invoke(main, [*arguments, "--queue", "--stay"])
    assert staying.exit_code == 0, staying.output
    assert loads == ["model"]
    assert staying.stdout.startswith("queued ")
    [listed] = document(run(runs_dir, "runs", "--json"))
    assert (listed["status"], listed["step"]) == ("finished", 6)
    alone = document(run(runs_dir, *arguments[:-2], "--json"))
    assert alone["metrics"] == listed["metrics"]


def run_document(runs_dir: Path, run_id: str) -> dict[str, Any]:
    """Return what the command line says of a run."""
    return document(run(runs_dir, "show", run_id, "--json"))


@pytest.mark.journey
def test_whoever_launches_is_free_at_once_and_may_die(tiny_bert: Path, tiny_data: Path, runs_dir: Path) -> None:
    config = tiny_values(tiny_bert, tiny_data, train__steps=4000, log__eval_every=4000)
    handle = launch.enqueue(config, runs_dir, key="one")
    try:
        note = run_queue.read_launch(handle.folder)
        assert note.is_alive
        assert note.pid != os.getpid()
        assert "train" in lifecycle.command_line(note.pid or 0), "the process that checked the run"
        assert os.getsid(note.pid or 0) == note.pid, "detached from the terminal"
        until(lambda: handle.status().status == "running", "it trains")
        second = plan(parse_config({**config, "seed": 1})).create(runs_dir, "queued").name
        launch.wake(runs_dir)
        assert run_document(runs_dir, second)["status"] == "queued", "one run at a time"
        until(lambda: handle.status().step >= 2, "it goes on")
        assert launch.stop(runs_dir, handle.id) in ("stopping", "stopped")
        until(lambda: handle.status().status == "stopped", "it stops")
        until(lambda: run_document(runs_dir, second)["status"] == "running", "the next one is started")
    finally:
        for run_id in (row["id"] for row in document(run(runs_dir, "runs", "--json"))):
            run(runs_dir, "stop", run_id, "--now")
    assert "stopping" in (handle.folder / run_queue.LOG_NAME).read_text()


def test_a_run_that_is_not_next_is_left_to_the_queue(
    tiny_bert: Path, tiny_data: Path, runs_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dynlora.cli.commands.claim", lambda *_: False)
    monkeypatch.setattr(launch, "start_next", lambda _: None)
    arguments = tiny_arguments(tiny_bert, tiny_data, "train.steps=2")
    answer = document(run(runs_dir, "train", *arguments, "--queue", "--stay", "--json"))
    assert document(run(runs_dir, "show", answer["id"], "--json"))["status"] == "queued"


def test_only_the_next_run_is_claimed(tiny_bert: Path, tiny_data: Path, runs_dir: Path) -> None:
    arguments = tiny_arguments(tiny_bert, tiny_data, "train.steps=2")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(launch, "start_next", lambda _: None)
        patch.setattr(launch, "wake", lambda _: None)
        first, second = (document(run(runs_dir, "train", *arguments, "--queue", "--json"))["id"] for _ in range(2))
    assert not run_queue.claim(runs_dir, second)
    assert run_queue.claim(runs_dir, first)
    assert run_queue.read_launch(runs_dir / first).pid == os.getpid()
    assert not run_queue.claim(runs_dir, first), "once"


def script(body: str) -> list[str]:
    return [sys.executable, "-c", f"import os, sys, time\n{body}"]


def test_a_command_that_ends_is_waited_for() -> None:
    done = run_or_leave(script("print('said'); print('why', file=sys.stderr); sys.exit(2)"), 60)
    assert (done.returncode, done.stdout, done.stderr) == (2, b"said\n", b"why\n")


def test_a_command_that_closes_its_output_goes_on(tmp_path: Path) -> None:
    body = (
        f"print(os.getpid(), flush=True); null = os.open({os.devnull!r}, os.O_WRONLY); os.dup2(null, 1); "
        "os.dup2(null, 2); os.close(null); time.sleep(600)"
    )
    done = run_or_leave(script(body), 120)
    pid = int(done.stdout)
    assert done.returncode == 0
    assert lifecycle.start_time(pid) is not None
    os.kill(pid, signal.SIGKILL)


def test_a_command_that_hangs_is_ended(tmp_path: Path) -> None:
    import subprocess

    mark = tmp_path / "pid"
    body = f"open({str(mark)!r}, 'w').write(str(os.getpid())); time.sleep(600)"
    with pytest.raises(subprocess.TimeoutExpired):
        run_or_leave(script(body), 1.5)
    assert not mark.exists() or lifecycle.start_time(int(mark.read_text())) is None
