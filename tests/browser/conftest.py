"""The browser that the tests in this folder drive, and the dashboard that it opens: one of each for all of them.

Each test has a runs folder of its own all the same: the folder that the server was started with is a link, which every
test points at its own.
"""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from dynlora.jobs import launch
from dynlora.store import queries
from tests.browser.chromium import find_chromium
from tests.viz.runs import make_run
from tests.waiting import PATIENCE_MS, until

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page

ARTIFACTS = Path(__file__).parents[1] / "artifacts"
ROOT = Path(__file__).resolve().parents[2]
OTHER = "20260101-000000-00000001"
"""A finished run that every browser test finds in its runs folder."""

Window = Callable[..., "BrowserContext"]
"""Opens a window: width, height, and what else playwright takes."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test in this folder, so that `-m "not browser"` leaves them out."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.browser)


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """A headless Chromium; with the folder ends playwright's event loop, beside which no test may run its own."""
    from playwright.sync_api import expect, sync_playwright

    expect.set_options(timeout=PATIENCE_MS)
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


@pytest.fixture(scope="package")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """The dashboard on a free port: its address, and the folder whose runs it shows."""
    folder = tmp_path_factory.mktemp("served") / "runs"
    folder.mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "dynlora", "ui", "--port", str(port), "--runs-dir", str(folder)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL) as process:
        try:
            until(lambda: answers(f"http://127.0.0.1:{port}/_stcore/health", process), "the dashboard")
            folder.rmdir()
            yield f"http://127.0.0.1:{port}", folder
        finally:
            _end(process)


@pytest.fixture
def server(served: tuple[str, Path], runs_dir: Path) -> Iterator[str]:
    """The dashboard's address, its runs in a folder of the test's own."""
    make_run(runs_dir, run_id=OTHER, text="another run")
    address, link = served
    link.symlink_to(runs_dir, target_is_directory=True)
    yield address
    _stop_runs(runs_dir)
    link.unlink()


def answers(address: str, process: subprocess.Popen[bytes]) -> bool:
    assert process.poll() is None, "the dashboard's server ended"
    try:
        with urllib.request.urlopen(address, timeout=5) as answer:
            return answer.status == 200
    except OSError:
        return False


def _stop_runs(runs_dir: Path) -> None:
    """Let no run outlive its test."""
    for row in queries.list_runs(runs_dir).to_dict("records"):
        if row["status"] in ("queued", "running"):
            launch.stop(runs_dir, row["id"])
            until(lambda run=row["id"]: not launch.is_alive(runs_dir, run), "the end of a run")


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the server and the child it serves with."""
    import psutil

    family = [*psutil.Process(process.pid).children(recursive=False), psutil.Process(process.pid)]
    for member in family:
        if "streamlit" in " ".join(member.cmdline()) or member.pid == process.pid:
            member.terminate()
    psutil.wait_procs(family, timeout=10)


@pytest.fixture
def window(browser: Browser) -> Iterator[Window]:
    """Opens a window of its own for a test: `window(width=375, color_scheme="dark")`."""
    opened: list[BrowserContext] = []

    def open_one(width: int = 1280, height: int = 1000, **options: Any) -> BrowserContext:
        context = browser.new_context(viewport={"width": width, "height": height}, **options)
        context.set_default_timeout(PATIENCE_MS)
        opened.append(context)
        return context

    yield open_one
    for context in opened:
        context.close()


@pytest.fixture
def page(window: Window) -> Iterator[Page]:
    """A page that fails the test on a request to another machine."""
    page = window().new_page()
    foreign: list[str] = []
    page.on("request", lambda request: foreign.append(request.url) if _is_foreign(request.url) else None)
    yield page
    assert foreign == []


def settled(page: Page) -> None:
    """Wait until nothing is being drawn: what is typed or picked before may be lost when it is drawn again."""
    from playwright.sync_api import expect

    expect(page.locator('[data-testid="stApp"][data-test-script-state="notRunning"]')).to_be_visible()
    expect(page.locator('[data-testid="stStatusWidget"]')).to_have_count(0)


def _is_foreign(address: str) -> bool:
    return re.match(r"(data|blob):|(http|ws)://127\.0\.0\.1:", address) is None
