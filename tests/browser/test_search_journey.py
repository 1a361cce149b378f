"""Search in a real browser: a mistake in its place, a saved view, all that it finds compared in every section."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.browser.conftest import Picture, fits, settled, show
from tests.store.builder import finished_run

if TYPE_CHECKING:
    from playwright.sync_api import Page


def _sweep(runs_dir: Path) -> None:
    for number in range(12):
        strategy, lr, seed = ("dynamic", "lora")[number // 6], (1e-3, 2e-3, 4e-3)[number // 2 % 3], number % 2
        data = ("sst2", "cola", "a data set with a long name")[number % 3]
        config = {"seed": seed, "strategy": {"name": strategy}, "train": {"lr": lr}, "data": {"name": data}}
        finished_run(
            runs_dir,
            10 * (2 + number % 5),
            f"20260102-000000-{number:08x}",
            name=f"swept {number}",
            strategy=strategy,
            data=data,
            seed=seed,
            fidelity="code",
            config=config,
            params={"budget": 1000, "active": 900 + number},
        )


@pytest.mark.journey
def test_from_a_search_to_the_table_of_the_paper(
    server: str, page: Page, other_page: Page, picture: Picture, runs_dir: Path
) -> None:
    from playwright.sync_api import expect

    _sweep(runs_dir)
    page.goto(f"{server}/runs")
    box = page.get_by_role("textbox", name="Search", exact=True)
    settled(page)
    box.fill("swept and acuracy>0.02")
    box.press("Enter")
    expect(page.get_by_text("did you mean accuracy?")).to_be_visible()
    expect(page.get_by_test_id("stCode").first).to_contain_text("^")
    box.fill("swept and train.lr>=1e-3")
    box.press("Enter")
    expect(page.get_by_text(re.compile(r"12 of \d+ runs match the filter"))).to_be_visible()
    page.get_by_text("Save view").click()
    page.get_by_label("View name").fill("the sweep")
    page.get_by_label("View name").press("Enter")
    page.get_by_role("button", name="Save", exact=True).click()
    expect(page.get_by_text("Delete view")).to_be_visible()
    picture(page, "search-runs", full_page=True)
    page.get_by_role("link", name="Compare all 12 matching runs").click()
    expect(page.get_by_text(re.compile(r"12 of \d+ runs match and are compared"))).to_be_visible()
    for section, cards in (("Scatter plots", ("scatter", "parallel")), ("Sweeps", ("along", "grid"))):
        page.get_by_text(section, exact=True).click()
        for card in cards:
            expect(page.locator(f'[class*="st-key-card-{card}"] .js-plotly-plot')).to_have_count(1)
    page.get_by_text("Results table", exact=True).click()
    expect(page.locator('[class*="st-key-card-paper"] table strong').first).to_be_visible()
    assert "section=paper" in page.url
    address = page.url

    show(other_page, 375, 900, "dark")
    for section in ("paper", "sweeps"):
        other_page.goto(address.replace("section=paper", f"section={section}"))
        expect(other_page.locator('[class*="st-key-under-"]').last).to_be_visible()
        fits(other_page, "dark")
        picture(other_page, f"compare-{section}-narrow", full_page=True)

    page.go_back()
    expect(page.locator('[class*="st-key-card-grid"] .js-plotly-plot')).to_have_count(1)
