"""A newcomer: Home, the tour, and the form that it leads to."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from dynlora.viz import tour
from tests.browser.conftest import Picture, settled, show
from tests.waiting import until

if TYPE_CHECKING:
    from playwright.sync_api import Page

CARD = ':is([class*="st-key-card-tour"], .st-key-card-race)'
"""The card of a stop."""


@pytest.mark.journey
def test_a_newcomer_takes_the_tour(server: str, page: Page, picture: Picture) -> None:
    from playwright.sync_api import expect

    page.goto(server)
    settled(page)
    picture(page, "newcomer-home", full_page=True)

    page.get_by_role("link", name="Take the tour").click()
    _takes_the_tour(page, picture)
    page.get_by_role("link", name="Launch a similar run").click()
    expect(page).to_have_url(re.compile("/launch"))
    settled(page)
    page.goto(server)
    expect(page.get_by_role("link", name="See rank move")).to_be_visible()
    assert page.get_by_role("link", name="Take the tour").count() == 0, "it was taken"


def _takes_the_tour(page: Page, picture: Picture) -> None:
    """Go from stop to stop, back from the last one, and forward again."""
    from playwright.sync_api import expect

    expect(page.locator(".replay svg")).to_be_visible()
    for width, is_beside in ((1280, True), (961, True), (780, False)):
        show(page, width)
        until(lambda beside=is_beside: _is_picture_beside_the_text(page) == beside, f"the columns at {width} px")
    show(page)
    for stop in tour.STOPS[1:]:
        page.locator('[class*="st-key-tour-way"]').get_by_role("link", name=f"{stop.short} →").click()
        expect(page.get_by_role("heading", name=stop.question, exact=True)).to_be_visible()
        expect(page.locator(f"{CARD} .js-plotly-plot").first).to_be_visible()
        expect(page).to_have_url(re.compile(f"stop={stop.key}"))
        until(lambda: _has_menus_of_its_charts(page), f"the menus of the charts of {stop.key}")
        picture(page, f"tour-{stop.key}", full_page=True)
    page.go_back()
    expect(page.get_by_role("heading", name=tour.STOPS[-2].question, exact=True)).to_be_visible()
    page.go_forward()
    expect(page.get_by_role("link", name="Launch a similar run")).to_be_visible()


def _has_menus_of_its_charts(page: Page) -> bool:
    """Say whether the card has one menu for each of its charts, one of its own at most, and none of the stop before."""
    card = page.locator(CARD).first
    return card.locator('[class*="st-key-table-"]').count() - card.locator(".js-plotly-plot:visible").count() in (0, 1)


def _is_picture_beside_the_text(page: Page) -> bool:
    text, picture = (page.locator(".st-key-tour-stop [data-testid=stColumn]").nth(n).bounding_box() for n in (0, 1))
    assert text is not None
    assert picture is not None
    return picture["x"] >= text["x"] + text["width"]
