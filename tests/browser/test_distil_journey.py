"""Two runs that write teach one student in a browser; it is compared, downloaded, and writes in the Playground."""

from __future__ import annotations

import json
import re
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from dynlora.jobs.queue import read_status
from dynlora.kinds.distil.result import Distil
from dynlora.kinds.distil.settings import DistilSettings
from tests.browser.conftest import MODES, Picture, fits, settled, show
from tests.browser.test_recycle_journey import pick
from tests.kinds.distil.conftest import SAID, train_writer
from tests.tiny_lm import save_tiny_lm
from tests.waiting import until

if TYPE_CHECKING:
    from playwright.sync_api import Page


@pytest.fixture
def teachers(runs_dir: Path, tmp_path: Path) -> list[str]:
    """Ids of two tiny teachers that write, in the runs folder of the test."""
    model = save_tiny_lm(tmp_path / "llama")
    return [train_writer(runs_dir, model, texts, number).name for number, texts in enumerate(SAID[:2])]


@pytest.mark.journey
def test_a_user_distils_two_runs_that_write_and_uses_the_student(
    server: str, page: Page, picture: Picture, runs_dir: Path, teachers: list[str], tmp_path: Path
) -> None:
    from playwright.sync_api import expect

    page.goto(f"{server}/recycle")
    settled(page)
    page.locator("summary").filter(has_text="New recycle").click()  # a sample is shown first
    settled(page)
    for number in range(len(teachers)):
        pick(page, "recycle-teachers", f"teacher {number}")
    expect(page.locator(".st-key-card-recycle-new")).to_contain_text("This is data-free distillation, not LoRA Recycle")
    pick(page, "distil-effort", "Quick")
    tokens = page.get_by_role("spinbutton", name="Tokens per text")
    tokens.fill("10")
    tokens.press("Enter")
    settled(page)
    page.get_by_role("button", name="Start", exact=True).click()
    expect(page).to_have_url(re.compile(r"run=[\w-]+"))
    match = re.search(r"run=([\w-]+)", page.url)
    assert match is not None
    folder = runs_dir / match[1]
    assert set(DistilSettings.of_run(folder).teachers) == set(teachers)
    expect(page.locator(".st-key-recycle-head")).to_contain_text(re.compile(r"Step [1-9]\d* of 108"))
    until(lambda: read_status(folder).status == "finished", "the end of the distillation")
    expect(page.locator(".st-key-recycle-head")).to_contain_text("finished")
    assert {one.model for one in Distil.read(folder).kl} == {"student", "base", "averaged"}
    expect(page.locator(".st-key-card-conclusion")).to_contain_text("nearer to its teachers than the base model")
    loss = page.locator(".st-key-card-loss")
    for name in ("Student", "Base model", "The teacher itself"):
        expect(loss.locator(".legendtext").filter(has_text=name)).to_be_visible()
    _takes_it_away(page, folder, tmp_path)
    for width, mode in zip((375, 1400), MODES, strict=True):
        show(page, width, 1000, mode)
        page.goto(f"{server}/recycle?run={folder.name}")
        fits(page, mode)
        picture(page, f"distil-{width}-{mode}", full_page=True)
    _writes_with_it(page, picture)


def _takes_it_away(page: Page, folder: Path, place: Path) -> None:
    """Open what exports the student, and download its adapter."""
    from playwright.sync_api import expect

    page.get_by_role("button", name="Export").click()
    expect(page.get_by_text(re.compile(rf"dynlora export {folder.name} --format merged"))).to_be_visible()
    page.keyboard.press("Escape")
    with page.expect_download() as started:
        page.get_by_role("button", name="Adapter").click()
    packed = place / "student.zip"
    started.value.save_as(packed)
    with zipfile.ZipFile(packed) as archive:
        config = next(name for name in archive.namelist() if name.endswith("adapter_config.json"))
        assert json.loads(archive.read(config))["task_type"] == "CAUSAL_LM"


def _writes_with_it(page: Page, picture: Picture) -> None:
    """Follow the link to the Playground and let the student continue a text."""
    from playwright.sync_api import expect

    show(page, 1280, 1000)
    settled(page)
    page.get_by_role("link", name="Write with it").click()
    prompt = page.get_by_label("Prompt", exact=True)
    expect(prompt).to_be_visible()
    settled(page)
    prompt.fill("abab")
    page.get_by_role("button", name="Generate").click()
    card = page.locator('[class*="st-key-card-answers"]')
    expect(card.get_by_text(re.compile(r"^Adapter · \d+ tokens?"))).to_be_visible()
    expect(card.get_by_text(re.compile("The adapter continues the text"))).to_be_visible()
    expect(page.get_by_role("heading", name="Attribution by module")).to_be_visible()
    picture(page, "distil-playground", full_page=True)
