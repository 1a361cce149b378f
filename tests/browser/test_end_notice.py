"""A run that ends is told in the tab's title, and as a notification where somebody pressed the switch."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.browser.conftest import Window, settled
from tests.viz.growing import Running

if TYPE_CHECKING:
    from playwright.sync_api import Page

BROWSER = """
window.shown = []; window.asked = 0;
window.Notification = class {
  static permission = 'default';
  static async requestPermission() { window.asked += 1; return (this.permission = 'granted'); }
  constructor(title) { window.shown.push(title); }
};
document.hasFocus = () => false;
"""
"""A browser that would allow notifications, whose person looks at another window."""


def _page(window: Window, server: str) -> Page:
    """Open a page of the menu while a run trains."""
    page = window().new_page()
    page.add_init_script(BROWSER)
    page.goto(f"{server}/methods")
    page.get_by_role("heading", name="Methods", level=1).wait_for()
    settled(page)
    return page


def _end(run: Running) -> None:
    run.writer.finish("finished")
    run.writer.close()


@pytest.mark.journey
def test_the_title_counts_a_run_that_ended_and_nothing_is_asked(server: str, window: Window, runs_dir: Path) -> None:
    from playwright.sync_api import expect

    run = Running(runs_dir)
    run.advance(3)
    page = _page(window, server)
    expect(page).to_have_title("Methods · dynlora")
    _end(run)
    expect(page).to_have_title("(1 ended) Methods · dynlora")
    assert page.evaluate("window.asked") == 0
    assert page.evaluate("window.shown") == []
    page.evaluate("window.dispatchEvent(new Event('focus'))")
    expect(page).to_have_title("Methods · dynlora")


@pytest.mark.journey
def test_the_switch_asks_the_browser_once_and_the_end_is_notified_once(
    server: str, window: Window, runs_dir: Path
) -> None:
    from playwright.sync_api import expect

    run = Running(runs_dir)
    run.advance(3)
    page = _page(window, server)
    switch = page.get_by_label("Notify when a run ends")
    expect(switch).not_to_be_checked()
    switch.click()
    expect(switch).to_be_checked()
    assert page.evaluate("window.asked") == 1
    _end(run)
    expect(page).to_have_title(re.compile(r"\(1 ended\)"))
    assert page.evaluate("window.shown") == ["grows: finished"]
