"""The Playground and the ablations in a browser, with the real inference child behind them, which dies on the way."""

from __future__ import annotations

import os
import re
import shutil
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from dynlora.store.measurements import Knockouts
from tests.browser.conftest import Picture, settled
from tests.waiting import until

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page


def inference_child() -> psutil.Process:
    """Return the process that answers for the server of this test."""
    mine = psutil.Process().children(recursive=True)
    (child,) = [process for process in mine if _answers(process)]
    return child


def _answers(process: psutil.Process) -> bool:
    """Say whether a process is one that answers, and has not just ended."""
    try:
        return "answer" in process.cmdline()[:6] and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def pick_second(page: Page, box: Locator) -> None:
    """Pick the second option of a list until the address names it: what is still drawn above it closes the list."""
    from playwright.sync_api import TimeoutError as NotThere

    def is_picked() -> bool:
        if re.search(r"example=\d+", page.url):
            return True
        try:
            box.click(timeout=5000)
            page.get_by_role("option").nth(1).click(timeout=5000)
            page.wait_for_url(re.compile(r"example=\d+"), timeout=5000)
        except NotThere:
            page.keyboard.press("Escape")
            return False
        return True

    until(is_picked, "the choice of an example")


@pytest.mark.journey
def test_a_text_is_asked_and_a_module_knocked_out_though_the_child_dies(
    server: str, page: Page, runs_dir: Path, trained_run: Path, picture: Picture
) -> None:
    from playwright.sync_api import expect

    folder = runs_dir / trained_run.name
    shutil.copytree(trained_run, folder, ignore=shutil.ignore_patterns("knockout.json"))
    page.goto(f"{server}/playground?run={folder.name}")
    settled(page)
    page.get_by_label("Text", exact=True).fill("the film was great")
    page.get_by_role("button", name="Predict").click()
    expect(page.get_by_text(re.compile("Adapter predicts (good|bad)"))).to_be_visible()
    expect(page.get_by_role("heading", name="Words by layer")).to_be_visible()
    expect(page.get_by_text("log-odds decrease without the word")).to_be_visible()
    expect(page).to_have_url(re.compile("text=the"))
    picture(page, "playground", full_page=True)

    page.goto(f"{server}/inputs?run={folder.name}&section=tokens")
    by_word = page.locator('[class*="st-key-card-token-view"]')
    settled(page)
    pick_second(page, by_word.get_by_role("combobox"))
    expect(by_word.get_by_title(re.compile("log-odds")).first).to_be_visible()
    expect(by_word.get_by_title(re.compile("of its norm")).first).to_be_visible()
    expect(page).to_have_url(re.compile(r"example=\d+"))
    picture(page, "inputs-words", full_page=True)
    page.goto(f"{server}/playground?run={folder.name}")

    child = inference_child()
    os.kill(child.pid, signal.SIGKILL)
    settled(page)
    page.get_by_label("Text", exact=True).fill("the plot was dull")
    page.get_by_role("button", name="Predict").click()
    expect(page.get_by_title(re.compile("log-odds")).filter(has_text="dull").first).to_be_visible()

    page.goto(f"{server}/capacity?run={folder.name}&section=ablation")
    page.get_by_role("button", name="Measure all modules").click()
    expect(page.get_by_text(re.compile("help and .* harm"))).to_be_visible()
    expect(page.get_by_role("button", name="Measure again")).to_be_visible()
    settled(page)  # while a page is drawn anew, what moved on it stands there twice
    expect(page.get_by_text("Rank correlation of each score")).to_be_visible()
    knockouts = Knockouts.read(folder / "knockout.json")
    assert knockouts is not None
    assert len(knockouts.alone) == knockouts.n_modules
    picture(page, "knockout", full_page=True)
