"""An expert: one module followed through all pictures, an example pinned across runs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.browser.conftest import Picture, click_point, settled
from tests.viz.runs import make_run

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

RUNS = [f"20260101-0001{number:02d}-00000000" for number in range(3)]


@pytest.mark.journey
def test_an_expert_follows_a_module_and_pins_an_example(
    server: str, page: Page, picture: Picture, runs_dir: Path
) -> None:
    from playwright.sync_api import expect

    for number, run in enumerate(RUNS):
        make_run(runs_dir, run_id=run, seed=number, extras=True, gates=False)
    page.goto(f"{server}/capacity?run={RUNS[0]}&section=transfers")
    click_point(page, _points(page, "map").nth(2), re.compile("module=bert"))
    module = re.findall(r"module=([^&]+)", page.url)[0]
    expect(page.get_by_text(f"is the module {module}.").first).to_be_attached()
    expect(page.locator('[class*="st-key-card-module"] .js-plotly-plot')).to_be_visible()
    marked = page.locator('[class*="st-key-card-map"] .shapelayer path')
    assert marked.count() >= 2, "the step and the module's row"
    picture(page, "expert-module", full_page=True)
    click_point(page, _points(page, "scatter").nth(1), re.compile(rf"module=(?!{re.escape(module)}(?:&|$))"))
    page.go_back()
    expect(page.get_by_text(f"is the module {module}.").first).to_be_attached()

    page.goto(f"{server}/inputs?run={RUNS[0]}")
    click_point(page, _points(page, "probe").nth(3), re.compile(r"points=\d+"))
    expect(page.get_by_role("heading", name="Selected examples: 1")).to_be_visible()
    page.get_by_test_id("stDataFrame").last.hover()
    expect(page.get_by_role("button", name="Search").last).to_be_visible()
    unguarded = page.get_by_test_id("stMain").get_by_role("button", name="Download as CSV", include_hidden=True)
    assert unguarded.count() > 0
    assert not any(button.is_visible() for button in unguarded.all())
    pinned = re.findall(r"points=(\d+)", page.url)[0]
    page.get_by_role("link", name="Compare this example across runs").click()
    expect(page).to_have_url(re.compile(rf"example={pinned}"))
    card = page.locator('[class*="st-key-card-example"]')
    expect(card.get_by_text(re.compile(r"of 3 runs predict its label"))).to_be_visible()
    picture(page, "expert-example", full_page=True)


def _points(page: Page, card: str) -> Locator:
    """Return the points of the first trace of a card's chart, once nothing is being drawn."""
    from playwright.sync_api import expect

    points = page.locator(f'[class*="st-key-card-{card}"] .js-plotly-plot .scatterlayer .trace').first.locator(".point")
    expect(points.first).to_be_attached()
    settled(page)
    return points
