"""Compare in a real browser: three seeds as one band, another axis, a link that restores; a finding's evidence."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.browser.conftest import OTHER, Picture, fits, show
from tests.viz.runs import make_run

if TYPE_CHECKING:
    from playwright.sync_api import Page


def _seeds(runs_dir: Path) -> str:
    ids = [f"20260102-000000-{number:08x}" for number in range(6)]
    for number, run in enumerate(ids):
        strategy = "dynamic" if number < 3 else "lora"
        make_run(runs_dir, run_id=run, seed=number % 3, strategy=strategy, gates=False, extras=True)
    return ",".join(ids)


@pytest.mark.journey
def test_three_seeds_another_axis_and_a_link_that_restores_it(
    server: str, page: Page, other_page: Page, picture: Picture, runs_dir: Path
) -> None:
    from playwright.sync_api import expect

    page.goto(f"{server}/compare?runs={_seeds(runs_dir)}&part=pairs")
    card = page.locator('[class*="st-key-card-loss"]')
    expect(card.locator(".legendtext").first).to_contain_text("n = 3")
    assert card.locator(".legendtext").count() == 2
    expect(card.locator(".scatterlayer .js-fill, .scatterlayer .fills path").first).to_be_attached()
    expect(page.get_by_text("Paired over 3 common seeds and 40 examples").first).to_be_visible()
    page.get_by_text("By adapter parameters × steps").click()
    expect(card.locator(".xtitle")).to_have_text(["Adapter parameters × steps"])
    page.get_by_text("Each run", exact=True).click()
    expect(card.locator(".legendtext")).to_have_count(6)
    assert "x=parameter-steps" in page.url
    assert "group=runs" in page.url
    picture(page, "compare-seeds", full_page=True)

    show(other_page, 375, 900, "dark")
    other_page.goto(page.url)
    card = other_page.locator('[class*="st-key-card-loss"]')
    expect(card.locator(".xtitle")).to_have_text(["Adapter parameters × steps"])
    expect(card.locator(".legendtext")).to_have_count(6)
    fits(other_page, "dark")

    page.go_back()
    expect(page.locator('[class*="st-key-card-loss"] .legendtext')).to_have_count(2)


@pytest.mark.journey
def test_a_finding_is_one_click_from_its_evidence(server: str, page: Page, picture: Picture) -> None:
    from playwright.sync_api import expect

    page.goto(f"{server}/run?run={OTHER}")
    expect(page.get_by_text("Importance is mostly noise")).to_be_visible()
    page.get_by_text("All results: classes, groups, before and after").click()
    expect(page.get_by_role("heading", name="Scores by class")).to_be_visible()
    assert "section=results" in page.url
    picture(page, "run-results", full_page=True)
    page.get_by_test_id("stMain").get_by_role("link", name="Show").last.click()
    expect(page.get_by_role("heading", name="Importance by module over time")).to_be_visible()
    assert f"run={OTHER}&signal=importance" in page.url
