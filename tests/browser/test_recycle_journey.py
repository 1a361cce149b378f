"""Three teachers become a meta-LoRA in a browser, and a file of a task nobody trained is classified with it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from dynlora.jobs.queue import read_status
from dynlora.kinds.recycle.result import Recycle
from dynlora.kinds.recycle.settings import RecycleSettings
from tests.browser.conftest import MODES, Picture, fits, settled, show
from tests.kinds.recycle.conftest import TASKS, train_teacher
from tests.tiny import save_tiny
from tests.waiting import until

if TYPE_CHECKING:
    from playwright.sync_api import Page

NEW_TASK = (
    "text,label\ndull dull the film,sad\nbroken dull a story,sad\nlovely the film,fine\nsuperb lovely a plot,fine\n"
)
"""A task that no teacher knows."""


@pytest.fixture
def teachers(runs_dir: Path, tmp_path: Path) -> list[str]:
    """Ids of three tiny teachers in the runs folder of the test."""
    model = save_tiny("bert", tmp_path / "bert")
    return [train_teacher(runs_dir, model, task, number).name for number, task in enumerate(TASKS)]


def pick(page: Page, key: str, text: str) -> None:
    """Pick an option of the list of a key by a part of its text; what is drawn above a list closes it."""
    from playwright.sync_api import TimeoutError as NotThere

    place = page.locator(f".st-key-{key}")
    box = place.get_by_role("combobox")

    def is_picked() -> bool:
        page.keyboard.press("Escape")  # an open list hides what is behind it
        settled(page)
        if text in place.inner_text() + box.input_value():
            return True
        try:
            box.click(timeout=5000)
            page.get_by_role("option").filter(has_text=text).first.click(timeout=5000)
        except NotThere:
            return False
        return False

    until(is_picked, f"{text} in {key}")


@pytest.mark.journey
def test_a_user_makes_a_meta_lora_of_three_runs_and_uses_it_on_a_new_task(
    server: str, page: Page, picture: Picture, runs_dir: Path, teachers: list[str]
) -> None:
    from playwright.sync_api import expect

    page.goto(f"{server}/recycle")
    settled(page)
    page.locator("summary").filter(has_text="New recycle").click()  # a sample is shown first
    settled(page)
    for number in range(len(teachers)):
        pick(page, "recycle-teachers", f"teacher {number}")
    pick(page, "recycle-effort", "Quick")
    page.get_by_role("button", name="Start", exact=True).click()
    expect(page).to_have_url(re.compile(r"run=[\w-]+"))
    match = re.search(r"run=([\w-]+)", page.url)
    assert match is not None
    folder = runs_dir / match[1]
    assert set(RecycleSettings.of_run(folder).teachers) == set(teachers)
    until(lambda: read_status(folder).status == "finished", "the end of the recycle")
    expect(page.locator(".st-key-recycle-head")).to_contain_text("finished")
    assert {one.model for one in Recycle.read(folder).accuracy} >= {"meta", "base"}
    expect(page.locator(".st-key-card-conclusion")).to_contain_text(re.compile("base model"))
    for width in (1400, 375):
        for mode in MODES:
            show(page, width, 1000, mode)
            page.goto(f"{server}/recycle?run={folder.name}")
            fits(page, mode)
            picture(page, f"recycle-{width}-{mode}", full_page=True)
    _classifies_a_new_task(page, picture)


def _classifies_a_new_task(page: Page, picture: Picture) -> None:
    """Follow the link to the Playground and upload a few examples of a task that nobody trained."""
    from playwright.sync_api import expect

    show(page, 1280, 1000)
    page.get_by_role("link", name="Try it on a new task").click()
    settled(page)
    page.locator('.st-key-few-shot-file input[type="file"]').set_input_files(
        {"name": "new.csv", "mimeType": "text/csv", "buffer": NEW_TASK.encode()}
    )
    answers = page.locator(".st-key-card-few-shot-answers")
    expect(answers).to_contain_text(re.compile("4 examples in all"))
    box = page.get_by_role("textbox", name="Texts to classify")
    box.fill("dull broken cast\nlovely superb music")
    box.press("Control+Enter")
    settled(page)
    expect(answers).to_contain_text(re.compile("Nearest of 2 classes"))
    picture(page, "few-shot", full_page=True)
