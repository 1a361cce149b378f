"""One module for a page: a click on its row, or its point, and every picture follows it; Back leaves it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tests.browser.conftest import OTHER, Picture, click_point

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page


def _points(page: Page, card: str, trace: int) -> Locator:
    plot = page.locator(f'[class*="st-key-card-{card}"] .js-plotly-plot')
    return plot.locator(".scatterlayer .trace").nth(trace).locator(".point")


@pytest.mark.journey
def test_a_click_on_a_row_and_on_a_point_follows_a_module(server: str, page: Page, picture: Picture) -> None:
    from playwright.sync_api import expect

    page.goto(f"{server}/capacity?run={OTHER}&section=transfers")
    handles = _points(page, "map", 0)
    expect(handles.first).to_be_attached()
    click_point(page, handles.nth(1), re.compile(r"module=bert"))
    by_row = re.findall(r"module=([^&]+)", page.url)[0]
    expect(page.locator('[class*="st-key-card-module"]')).to_be_visible()

    click_point(page, _points(page, "scatter", 0).nth(1), re.compile(rf"module=(?!{re.escape(by_row)}(?:&|$))"))
    by_point = re.findall(r"module=([^&]+)", page.url)[0]
    expect(page.get_by_text(f"is the module {by_point}.").first).to_be_attached()
    picture(page, "capacity-module", full_page=True)

    page.go_back()
    expect(page).to_have_url(re.compile(rf"module={re.escape(by_row)}"))
    expect(page.get_by_text(f"is the module {by_row}.").first).to_be_attached()
