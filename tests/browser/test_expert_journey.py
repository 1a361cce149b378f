"""An expert: a point of the probe set pinned, and its example in every run."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.browser.conftest import Picture, click_point, settled
from tests.viz.runs import make_run

if TYPE_CHECKING:
    from playwright.sync_api import Page

RUNS = [f"20260101-0001{number:02d}-00000000" for number in range(3)]


@pytest.mark.journey
def test_an_expert_pins_an_example_across_runs(server: str, page: Page, picture: Picture, runs_dir: Path) -> None:
    from playwright.sync_api import expect

    for number, run in enumerate(RUNS):
        make_run(runs_dir, run_id=run, seed=number, extras=True, gates=False)
    page.goto(f"{server}/inputs?run={RUNS[0]}")
    points = page.locator('[class*="st-key-card-probe"] .js-plotly-plot .scatterlayer .trace').first.locator(".point")
    expect(points.first).to_be_attached()
    settled(page)
    click_point(page, points.nth(3), re.compile(r"points=\d+"))
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
