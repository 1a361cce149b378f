"""The Capacity page in a browser: its first screen, and filters that stay open."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tests.browser.conftest import OTHER, settled, show

if TYPE_CHECKING:
    from playwright.sync_api import Page


SAMPLE = "20261205-150635-e9038c42"
"""A sample of 36 modules."""


@pytest.mark.journey
@pytest.mark.parametrize(("width", "height"), [(1440, 900), (1920, 1080)])
def test_the_first_screen_holds_all_rows_of_a_map_of_36_modules(
    width: int, height: int, server: str, page: Page
) -> None:
    show(page, width, height)
    page.goto(f"{server}/capacity?run={SAMPLE}")
    plot = page.locator('[class*="st-key-card-map"] .js-plotly-plot')
    plot.wait_for()
    settled(page)
    card = page.locator('[class*="st-key-card-map"]').first.bounding_box()
    cells = plot.locator(".heatmaplayer").bounding_box()
    assert card is not None
    assert cells is not None
    assert card["y"] <= 250
    assert plot.evaluate("plot => plot._fullData[0].meta.positions.length") == 36
    assert cells["y"] + cells["height"] <= height
    picture_of_step = page.locator(".replay svg").bounding_box()
    assert picture_of_step is not None
    assert picture_of_step["y"] + picture_of_step["height"] <= height
    assert picture_of_step["x"] + picture_of_step["width"] > width - 90, "the full width"


@pytest.mark.journey
def test_filters_stay_open_while_one_after_the_other_is_set(server: str, page: Page) -> None:
    from playwright.sync_api import expect

    page.goto(f"{server}/capacity?run={OTHER}")
    settled(page)
    page.get_by_role("button", name="Filter: all modules").click()
    page.locator(".st-key-address-kind input").click()
    page.get_by_role("option", name="key").click()
    expect(page).to_have_url(re.compile("kind=key"))
    settled(page)
    page.locator(".st-key-address-depth input").click()
    page.get_by_role("option", name="Layer 1").click()
    expect(page.get_by_role("button", name="Filter: key, layer 1")).to_be_visible()
    page.get_by_role("button", name="Show all").click()
    expect(page.get_by_role("button", name="Filter: all modules")).to_be_visible()
