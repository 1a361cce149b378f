"""The Inputs page in a browser: a click on a point of the probe set shows its text, and a link to that view holds."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tests.browser.conftest import OTHER, Picture, click_point, show

if TYPE_CHECKING:
    from playwright.sync_api import Page


@pytest.mark.journey
def test_a_point_of_the_probe_set_leads_to_its_text(
    server: str, page: Page, other_page: Page, picture: Picture
) -> None:
    from playwright.sync_api import expect

    page.goto(f"{server}/inputs?run={OTHER}")
    plot = page.locator('[class*="st-key-card-probe"] .js-plotly-plot')
    expect(plot).to_be_visible()
    click_point(page, plot.locator(".scatterlayer .trace").first.locator(".point").nth(3), re.compile(r"points=\d+"))
    expect(page.get_by_role("heading", name="Selected examples: 1")).to_be_visible()
    chosen = re.findall(r"points=(\d+)", page.url)[0]
    expect(page.get_by_text(f"example {chosen}").first).to_be_attached()
    picture(page, "inputs-point", full_page=True)

    page.get_by_test_id("stDataFrame").last.hover()
    expect(page.get_by_role("button", name="Search").last).to_be_visible()
    unguarded = page.get_by_test_id("stMain").get_by_role("button", name="Download as CSV", include_hidden=True)
    assert unguarded.count() > 0
    assert not any(button.is_visible() for button in unguarded.all())

    show(other_page)
    other_page.goto(page.url)
    expect(other_page.get_by_role("heading", name="Selected examples: 1")).to_be_visible()
