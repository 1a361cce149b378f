"""The tour from its first stop to its last, and an adapter that is brought along: sent, seen, linked."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from dynlora.viz.tour import model as tour_model
from tests.browser.conftest import Picture, fits, show
from tests.peft_adapter.files import small_adapter
from tests.waiting import until

if TYPE_CHECKING:
    from playwright.sync_api import Page


CARD = ':is([class*="st-key-card-tour"], .st-key-card-race)'
"""The card of a stop."""


@pytest.mark.journey
def test_from_stop_to_stop_and_back(server: str, page: Page, picture: Picture) -> None:
    from playwright.sync_api import expect

    page.goto(f"{server}/tour")
    expect(page.locator(".replay svg")).to_be_visible()
    for width, is_beside in ((1280, True), (961, True), (780, False)):
        show(page, width)
        until(lambda beside=is_beside: _is_picture_beside_the_text(page) == beside, f"the columns at {width} px")
    show(page)
    for stop in tour_model.STOPS[1:]:
        page.locator('[class*="st-key-tour-way"]').get_by_role("link", name=f"{stop.short} →").click()
        expect(page.get_by_role("heading", name=stop.short, exact=True)).to_be_visible()
        expect(page.locator(f"{CARD} .js-plotly-plot").first).to_be_visible()
        expect(page).to_have_url(re.compile(f"stop={stop.key}"))
        until(lambda: _has_menus_of_its_charts(page), f"the menus of the charts of {stop.key}")
        picture(page, f"tour-{stop.key}", full_page=True)
    expect(page.get_by_role("link", name="Launch a similar run")).to_be_visible()
    page.go_back()
    expect(page.get_by_role("heading", name="Gates", exact=True)).to_be_visible()


def _has_menus_of_its_charts(page: Page) -> bool:
    """Say whether the card has one menu for each of its charts, and none of the stop before."""
    card = page.locator(CARD).first
    return card.locator('[class*="st-key-table-"]').count() == card.locator(".js-plotly-plot:visible").count()


def _is_picture_beside_the_text(page: Page) -> bool:
    text, picture = (page.locator(".st-key-tour-stop [data-testid=stColumn]").nth(n).bounding_box() for n in (0, 1))
    assert text is not None
    assert picture is not None
    return picture["x"] >= text["x"] + text["width"]


@pytest.mark.journey
def test_an_adapter_is_brought_along(
    server: str, page: Page, other_page: Page, picture: Picture, tmp_path: Path
) -> None:
    from playwright.sync_api import expect

    folder = small_adapter(tmp_path / "adapter", layers=6)
    page.goto(f"{server}/capacity")
    expect(page.locator('[class*="st-key-card-map"] .js-plotly-plot')).to_be_visible()
    expect(page.locator('[data-testid="stStatusWidget"]')).to_have_count(0)
    page.get_by_role("link", name="Open adapter").click()
    expect(page.get_by_role("heading", name="Open adapter")).to_be_visible()
    page.get_by_test_id("stFileUploaderDropzoneInput").set_input_files(sorted(folder.iterdir()))
    expect(page.get_by_text("12 modules, of ranks 1 to 7")).to_be_visible()
    expect(page.locator(".js-plotly-plot:visible")).to_have_count(3)
    expect(page).to_have_url(re.compile(r"adapter=[0-9a-f]{12}"))
    page.get_by_text("Update norm", exact=True).first.click()
    expect(page).to_have_url(re.compile("number=norm"))
    picture(page, "adapter", full_page=True)
    shown = page.url

    show(other_page, 375, 900, "dark")
    other_page.goto(shown)
    expect(other_page.locator(".js-plotly-plot:visible")).to_have_count(3)
    fits(other_page, "dark")
    picture(other_page, "adapter-narrow", full_page=True)

    page.get_by_role("link", name="Capacity of a run").click()
    expect(page.get_by_role("heading", name="Rank by module over time")).to_be_visible()
    expect(page).not_to_have_url(re.compile("adapter="))
