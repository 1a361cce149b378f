"""The Playground in a browser, with the real inference child behind it, which dies on the way."""

from __future__ import annotations

import os
import re
import shutil
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from tests.browser.conftest import Picture, settled

if TYPE_CHECKING:
    from playwright.sync_api import Page


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


@pytest.mark.journey
def test_a_text_is_asked_though_the_child_dies(
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

    page.goto(f"{server}/playground?run={folder.name}")

    child = inference_child()
    os.kill(child.pid, signal.SIGKILL)
    settled(page)
    page.get_by_label("Text", exact=True).fill("the plot was dull")
    page.get_by_role("button", name="Predict").click()
    expect(page.get_by_title(re.compile("log-odds")).filter(has_text="dull").first).to_be_visible()
