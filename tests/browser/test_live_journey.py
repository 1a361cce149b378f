"""A running run followed in a browser for a minute: nobody touches the page, and it goes on."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.browser.conftest import Picture, settled, show
from tests.viz.growing import RUN, Running

if TYPE_CHECKING:
    from playwright.sync_api import Page

SECONDS = 60
WATCH = """() => {
  window.thumbs = new Set();
  const thumbs = '[role=slider], input[type=range], [data-testid=stButtonGroup]';
  const look = () => document.querySelectorAll(thumbs).forEach(one => window.thumbs.add(one));
  look();
  new MutationObserver(look).observe(document.body, {childList: true, subtree: true});
}"""
"""Keeps every thumb of a slider and every group of buttons that was ever on the page."""


@pytest.fixture(params=[0, pytest.param(8, marks=pytest.mark.torture)], ids=["alone", "eight busy loops"])
def busy(request: pytest.FixtureRequest) -> Iterator[int]:
    """Processes that keep the machine busy."""
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(request.param)]
    yield len(loops)
    for loop in loops:
        loop.kill()
        loop.wait()


@pytest.fixture
def run(server: str, runs_dir: Path) -> Iterator[Running]:
    """A run at step 22 of 400, which ends before the server looks for what still runs."""
    run = Running(runs_dir)
    run.advance(22)
    yield run
    run.writer.finish("stopped", None)


@pytest.mark.journey
def test_pages_left_alone_follow_a_run(
    server: str, page: Page, other_page: Page, run: Running, picture: Picture, busy: int
) -> None:
    from playwright.sync_api import expect

    pages = {"inputs": other_page, "capacity": page}
    for name, view in pages.items():
        show(view)
        view.goto(f"{server}/{name}?run={RUN}&section=transfers")
        expect(view.get_by_role("slider").first).to_be_visible()
        settled(view)
        view.evaluate(WATCH)
        view.wait_for_function("() => window.thumbs.size > 0")  # a page that is drawn again has none for a moment
    before = {name: (tab.url, tab.evaluate("() => window.thumbs.size")) for name, tab in pages.items()}
    for _ in range(SECONDS):
        run.advance(run.step + 1)
        page.wait_for_timeout(1000)
    # on a busy machine a page slows its refresh down, which draws it as a whole: seldom, and each time more seldom
    redrawn = 3 if busy else 1
    for name, text in (("inputs", f"At step {run.step},"), ("capacity", f"steps 0 to {run.step}.")):
        view = pages[name]
        show(view)
        expect(view.get_by_text(text).first).to_be_visible()
        url, thumbs = before[name]
        assert thumbs > 0
        assert view.url == url, "nobody has touched a control"
        assert thumbs <= view.evaluate("() => window.thumbs.size") <= thumbs * redrawn
        picture(view, f"live-{name}", full_page=True)
    expect(page.get_by_text(f"Rank transfers, steps 0 to {run.step}")).to_be_visible()
