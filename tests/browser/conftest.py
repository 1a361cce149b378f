"""The browser that the tests in this folder drive, and the dashboard that it opens."""

# pyright: reportArgumentType=false, reportCallIssue=false
# (pandas comes without types of its own)

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from dynlora.jobs import launch
from dynlora.store import queries
from tests.browser.chromium import find_chromium
from tests.viz.runs import make_run

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

ARTIFACTS = Path(__file__).parents[1] / "artifacts"
ROOT = Path(__file__).resolve().parents[2]
OTHER = "20260101-000000-00000001"
"""A finished run that every browser test finds in its runs folder."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test in this folder, so that `-m "not browser"` leaves them out."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.browser)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """A headless Chromium."""
    from playwright.sync_api import expect, sync_playwright

    expect.set_options(timeout=60_000)  # patience with a busy machine; what is there at once costs nothing
    path = find_chromium()
    if path is None:
        message = "no Chromium: install one, or name it in the variable CHROMIUM"
        pytest.fail(message) if os.environ.get("CI") else pytest.skip(message)
    arguments = ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=path, args=arguments)
        yield started
        started.close()


@pytest.fixture(scope="session")
def artifacts() -> Path:
    """Where screenshots go; git ignores it."""
    ARTIFACTS.mkdir(exist_ok=True)
    return ARTIFACTS


@pytest.fixture
def server(runs_dir: Path) -> Iterator[str]:
    """The dashboard on a free port, its runs in a folder of the test's own."""
    make_run(runs_dir, run_id=OTHER, text="another run")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "dynlora", "ui", "--port", str(port), "--runs-dir", str(runs_dir)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL) as process:
        try:
            _wait_for(f"http://127.0.0.1:{port}/_stcore/health", process)
            yield f"http://127.0.0.1:{port}"
        finally:
            _stop_runs(runs_dir)
            _end(process)


def _wait_for(address: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        assert process.poll() is None, "the dashboard's server ended"
        try:
            with urllib.request.urlopen(address, timeout=2) as answer:
                if answer.status == 200:
                    return
        except OSError:
            time.sleep(0.2)
    pytest.fail("the dashboard did not come up within a minute")


def _stop_runs(runs_dir: Path) -> None:
    """Let no run outlive a test that failed."""
    for row in queries.list_runs(runs_dir).to_dict("records"):
        if row["status"] in ("queued", "running"):
            launch.stop(runs_dir, row["id"])


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the server and the child it serves with."""
    import psutil

    family = [*psutil.Process(process.pid).children(recursive=False), psutil.Process(process.pid)]
    for member in family:
        if "streamlit" in " ".join(member.cmdline()) or member.pid == process.pid:
            member.terminate()
    psutil.wait_procs(family, timeout=10)


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page that fails the test on a request to another machine."""
    context = browser.new_context(viewport={"width": 1280, "height": 1000})
    page = context.new_page()
    foreign: list[str] = []
    page.on("request", lambda request: foreign.append(request.url) if _is_foreign(request.url) else None)
    yield page
    context.close()
    assert foreign == []


def _is_foreign(address: str) -> bool:
    return re.match(r"(data|blob):|(http|ws)://127\.0\.0\.1:", address) is None
