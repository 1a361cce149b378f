"""An adapter that is brought along: sent, seen, linked."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.browser.conftest import Picture, fits, settled, show
from tests.peft_adapter.files import small_adapter

if TYPE_CHECKING:
    from playwright.sync_api import Page


@pytest.mark.journey
def test_an_adapter_is_brought_along(
    server: str, page: Page, other_page: Page, picture: Picture, tmp_path: Path
) -> None:
    from playwright.sync_api import expect

    folder = small_adapter(tmp_path / "adapter", layers=6)
    page.goto(f"{server}/capacity")
    expect(page.locator('[class*="st-key-card-map"] .js-plotly-plot')).to_be_visible()
    settled(page)
    page.get_by_role("link", name="Open another adapter").click()
    expect(page.get_by_role("heading", name="Open adapter")).to_be_visible()
    page.get_by_test_id("stFileUploaderDropzoneInput").set_input_files(sorted(folder.iterdir()))
    expect(page.get_by_text("12 modules, of ranks 1 to 7")).to_be_visible()
    expect(page.locator(".js-plotly-plot:visible")).to_have_count(3)
    expect(page).to_have_url(re.compile(r"adapter=[0-9a-f]{12}"))
    page.get_by_text("Update norm", exact=True).first.click()
    expect(page).to_have_url(re.compile("number=norm"))
    picture(page, "adapter", full_page=True)
    address = page.url

    show(other_page, 375, 900, "dark")
    other_page.goto(address)
    expect(other_page.locator(".js-plotly-plot:visible")).to_have_count(3)
    fits(other_page, "dark")
    picture(other_page, "adapter-narrow", full_page=True)

    page.get_by_role("link", name="Capacity of a run").click()
    expect(page.get_by_role("heading", name="Rank by module over time")).to_be_visible()
    expect(page).not_to_have_url(re.compile("adapter="))
