"""What a person waits for, measured in a real Chromium: the request, a changed control, and a page left open."""

from __future__ import annotations

import os
import re
import socket
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from tests.browser.chromium import find_chromium

ROOT = Path(__file__).resolve().parents[1]
MAP = '[class*="st-key-card-map"] .js-plotly-plot .heatmaplayer image'
WAIT_MS, LOOK_MS = 60_000, 100


@contextmanager
def server(runs_dir: Path, *, door: bool = False) -> Iterator[tuple[str, psutil.Process]]:
    """Serve the dashboard on a free port; yields its address and its process.

    Args:
        runs_dir: the runs folder.
        door: whether as `dynlora ui` does, which looks at every request; else streamlit alone, read-only.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "streamlit", "run", str(ROOT / "app.py"), f"--server.port={port}"]
    environment = {**os.environ, "DYNLORA_RUNS_DIR": str(runs_dir), "DYNLORA_READ_ONLY": "1"}
    if door:
        command = [sys.executable, "-m", "dynlora", "ui", "--port", str(port), "--runs-dir", str(runs_dir)]
        environment.pop("DYNLORA_READ_ONLY")
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL) as child:
        try:
            _wait_for(f"http://127.0.0.1:{port}/_stcore/health")
            yield f"http://127.0.0.1:{port}", psutil.Process(child.pid)
        finally:
            child.terminate()


def _wait_for(address: str) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(address, timeout=2):
                return
        except OSError:
            time.sleep(0.1)
    raise TimeoutError("the dashboard did not come up within a minute")


def seen(locator: Any, wait_ms: float = 60_000) -> None:
    """Wait until something is visible, looking ten times a second.

    Playwright's own waiting looks twice a second once a third of a second is over: what it reports is up to half a
    second late. Looking at every frame would take the processor from what is waited for.
    """
    deadline = time.monotonic() + wait_ms / 1000
    while not locator.is_visible():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not on screen after {wait_ms / 1000:.0f} s: {locator}")
        locator.page.wait_for_timeout(LOOK_MS)


def on_screen(runs_dir: Path, run_id: str, repeats: int, reruns: int, *, door: bool = False) -> dict[str, Any]:
    """Return the seconds until things are on screen, and the server's memory before and after many reruns.

    Args:
        runs_dir: the runs folder.
        run_id: the run whose Capacity page is opened.
        repeats: readings of each time; the median is returned.
        reruns: of an open page, between two looks at memory.
        door: as `server` takes it.

    Keys: `title_s` (a page's title: what streamlit itself takes), `first_s` (a link opened in a browser that has the
    page's scripts), `control_s` (another signal chosen), `reruns`, `rss_before_mib`, `rss_after_mib`; empty without a
    Chromium.
    """
    from playwright.sync_api import sync_playwright

    path = find_chromium()
    if path is None:
        return {}
    with server(runs_dir, door=door) as (address, process), sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_context(viewport={"width": 1280, "height": 1000}).new_page()
        view = f"{address}/capacity?run={run_id}"
        page.goto(view)
        page.wait_for_selector(MAP, timeout=WAIT_MS)  # the server imports, the browser fetches: once
        title, first, control = [], [], []
        for number in range(repeats):
            # a step range nobody asked for yet, so that no answer is at hand
            title.append(_timed(f"{address}/methods", page, "[data-testid=stMain] h1"))
            first.append(_timed(f"{view}&steps={number}-", page, MAP))
            for signal in ("importance", "rank"):
                control.append(_choose(page, signal))
        before = _rss(process, page, 5)
        after = _rss(process, page, reruns)
        browser.close()
    return {
        "title_s": statistics.median(title),
        "first_s": statistics.median(first),
        "control_s": statistics.median(control),
        "reruns": reruns,
        "rss_before_mib": before,
        "rss_after_mib": after,
    }


def _timed(address: str, page: Any, selector: str) -> float:
    """Return the seconds from a request until what it brings is there and drawn."""
    start = time.perf_counter()
    page.goto(address, wait_until="commit")
    page.wait_for_function("name => document.querySelector(name) !== null", arg=selector, timeout=WAIT_MS)
    return time.perf_counter() - start


def _choose(page: Any, signal: str) -> float:
    """Choose another signal and return the seconds until its map has taken the place of the one before."""
    before = page.locator(MAP).first.get_attribute("href")
    start = time.perf_counter()
    name = re.compile(f"^{re.escape(signal)}$", re.IGNORECASE)
    page.get_by_role("button", name=name).or_(page.get_by_role("radio", name=name)).click()
    page.wait_for_function(
        "([map, before]) => { const now = document.querySelector(map); "
        "return now !== null && now.getAttribute('href') !== before; }",
        arg=[MAP, before],
        timeout=WAIT_MS,
    )
    return time.perf_counter() - start


def _rss(process: psutil.Process, page: Any, reruns: int) -> float:
    """Rerun the page so often and return the server's resident memory after it, MiB."""
    app = page.get_by_test_id("stApp")
    for _ in range(reruns):
        page.keyboard.press("r")
        page.wait_for_timeout(30)
        app.and_(page.locator('[data-test-script-state="notRunning"]')).wait_for(timeout=WAIT_MS)
    return process.memory_info().rss / 2**20
