"""The shift lab in a browser: a run that never sees one of the groups."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from dynlora.store import queries
from tests.browser.conftest import OTHER, settled

if TYPE_CHECKING:
    from playwright.sync_api import Page


@pytest.mark.journey
def test_a_run_is_trained_on_the_other_groups(server: str, page: Page, runs_dir: Path, trained_run: Path) -> None:
    from playwright.sync_api import expect

    folder = runs_dir / trained_run.name
    shutil.copytree(trained_run, folder)
    card = page.locator('[class*="st-key-card-shift"]')

    page.goto(f"{server}/inputs?run={folder.name}&lab=train")
    button = card.get_by_role("button", name="Train on the other groups")
    expect(button).to_be_disabled()
    settled(page)
    wanted = card.get_by_test_id("stMultiSelect").locator("input")
    wanted.press("ArrowDown")
    wanted.press_sequentially("long")
    wanted.press("Enter")
    card.get_by_role("heading", include_hidden=True).click(force=True)  # an open list hides all else from readers
    expect(button).to_be_enabled()
    expect(page).to_have_url(re.compile("left=long"))
    button.click()
    expect(card.get_by_text("Queued.")).to_be_visible()
    card.get_by_role("link", name="Open run").click()
    expect(page).to_have_url(re.compile(r"/run\?run=(?!" + folder.name + ")"))
    (started,) = set(queries.list_runs(runs_dir)["id"]) - {OTHER, folder.name}
    config = queries.run_summary(runs_dir / started).config
    assert config["data"]["train_groups"] == ["short"]
