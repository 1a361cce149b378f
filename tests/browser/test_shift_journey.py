"""The shift lab in a browser: perturbed text, group by group, and a run that never sees one of the groups."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from dynlora.store import queries
from tests.browser.conftest import OTHER, Picture, settled

if TYPE_CHECKING:
    from playwright.sync_api import Page


@pytest.mark.journey
def test_texts_are_perturbed_groups_told_apart_and_one_left_out(
    server: str, page: Page, runs_dir: Path, trained_run: Path, picture: Picture
) -> None:
    from playwright.sync_api import expect

    folder = runs_dir / trained_run.name
    shutil.copytree(trained_run, folder)
    card = page.locator('[class*="st-key-card-shift"]')

    page.goto(f"{server}/inputs?run={folder.name}&kind=negated&strength=1.0")
    settled(page)
    card.get_by_text("Evaluate perturbed text").click()
    expect(card.get_by_text(re.compile(r"→ .*\bnot\b")).first).to_be_visible()
    expect(card.get_by_text(re.compile(r"Negated \(100 %\)"))).to_be_visible()
    expect(card.locator(".js-plotly-plot")).to_have_count(1)
    expect(page).to_have_url(re.compile("tried=on"))
    picture(page, "shift-text", full_page=True)

    page.goto(f"{server}/inputs?run={folder.name}&lab=group")
    settled(page)
    card.get_by_text("Evaluate each group").click()
    expect(card.get_by_test_id("stDataFrame")).to_be_visible()
    expect(card.locator(".js-plotly-plot")).to_have_count(1)
    picture(page, "shift-groups", full_page=True)

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
    config = queries.run_summary(runs_dir / started)["config"]
    assert config["data"]["train_groups"] == ["short"]
