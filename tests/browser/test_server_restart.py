"""The dashboard's server is killed while a run trains and started again: the run goes on, the view comes back."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from dynlora.config import parse_config
from dynlora.jobs import launch
from dynlora.store import queries
from dynlora.training.run import plan
from tests.browser.conftest import OTHER, ROOT, Picture, answers
from tests.tiny import tiny_values
from tests.viz.runs import make_run
from tests.waiting import until

if TYPE_CHECKING:
    from playwright.sync_api import Page


@pytest.fixture
def port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@pytest.fixture
def trained(runs_dir: Path, tiny_bert: Path, tiny_data: Path) -> Iterator[str]:
    """The id of a run that trains for longer than the test looks."""
    config = tiny_values(tiny_bert, tiny_data)
    config["train"] = {**config["train"], "steps": 100_000}
    config["log"] = {"eval_every": 100_000, "checkpoint_every": 100_000}
    run_id = plan(parse_config(config)).create(runs_dir, "queued").name
    launch.wake(runs_dir)
    until(lambda: queries.run_summary(runs_dir / run_id).step, "a first step")
    yield run_id
    launch.stop(runs_dir, run_id)
    until(lambda: not launch.is_alive(runs_dir, run_id), "the end of the run")


class Server:
    """The dashboard on a port, that can be killed."""

    def __init__(self, port: int, runs_dir: Path) -> None:
        command = [sys.executable, "-m", "streamlit", "run", str(ROOT / "app.py"), f"--server.port={port}"]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "DYNLORA_RUNS_DIR": str(runs_dir)}
        self.process = subprocess.Popen(command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL)
        until(lambda: answers(f"http://127.0.0.1:{port}/_stcore/health", self.process), "the dashboard")

    def kill(self) -> None:
        """End it as a crash does: nothing is cleaned up."""
        self.process.kill()
        self.process.wait()


@pytest.mark.journey
def test_a_killed_server_comes_back_to_the_same_run_and_view(
    port: int, trained: str, runs_dir: Path, page: Page, picture: Picture
) -> None:
    from playwright.sync_api import expect

    make_run(runs_dir, run_id=OTHER, text="another run")
    view = f"http://127.0.0.1:{port}/capacity?run={trained}&signal=importance"
    server = Server(port, runs_dir)
    try:
        page.goto(view)
        expect(page.get_by_role("heading", name="Importance by module over time")).to_be_visible()
        before = queries.run_summary(runs_dir / trained)
        pid = trainer(runs_dir, trained)
        server.kill()
        assert psutil.pid_exists(pid)
        server = Server(port, runs_dir)

        page.goto(view)
        expect(page.get_by_role("heading", name="Importance by module over time")).to_be_visible()
        assert "signal=importance" in page.url
        after = queries.run_summary(runs_dir / trained)
        assert after.status == "running"
        until(lambda: queries.run_summary(runs_dir / trained).step > before.step, "another step")
        assert trainer(runs_dir, trained) == pid, "the run must go on in the process it began in"

        page.goto(f"http://127.0.0.1:{port}/run?run={trained}")
        expect(page.get_by_text("· running").first).to_be_visible()
        expect(page.get_by_text(re.compile(r"step [\d,]+ of 100,000"))).to_be_visible()
        picture(page, "restarted", full_page=True)
    finally:
        server.kill()


def trainer(runs_dir: Path, run_id: str) -> int:
    """Return the pid of the process that trains a run, and make sure that it lives."""
    from dynlora.store.reader import RunReader

    with RunReader(runs_dir / run_id) as reader:
        status = reader.status()
    assert status.status == "running"
    assert status.pid is not None
    return status.pid
