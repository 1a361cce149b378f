"""Every key that the menu lists does what it says, and a name in the list of runs opens the run."""

from __future__ import annotations

import re
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from dynlora.viz.ui.frame import KEYS
from tests.browser.conftest import DRAWN_IN_MS, OTHER, settled, show
from tests.waiting import until

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

ROW_HEIGHT, HALF, NAME_AT, STATUS_AT = 35, 18, 101, 357
"""Of the table of runs, pixels; the places of a name and of a status from the table's left end."""


def table_of_runs(server: str, page: Page) -> Locator:
    """Open the list of runs and return its table, drawn."""
    page.goto(f"{server}/runs?q={OTHER}")
    table = page.get_by_test_id("stDataFrame").locator("canvas").first
    table.wait_for()
    settled(page)
    return table


def click(table: Locator, x: int) -> None:
    """Click into the first row."""
    table.click(position={"x": x, "y": ROW_HEIGHT + HALF}, force=True)  # a scroller lies over the canvas


def selects(server: str, page: Page, selected: Locator) -> bool:
    """Open the list anew, click, and say whether a cell is marked then: a table may have missed an earlier click."""
    from playwright.sync_api import TimeoutError as NotInTime

    click(table_of_runs(server, page), STATUS_AT)
    with suppress(NotInTime):
        selected.wait_for(state="attached", timeout=DRAWN_IN_MS)
    return selected.count() == 1


def test_a_player_takes_the_keys_of_the_list(server: str, page: Page) -> None:
    from playwright.sync_api import expect

    page.goto(f"{server}/capacity?run={OTHER}")
    player = page.locator(".replay")
    slider, button = player.get_by_label("Step shown"), player.locator("button:not([data-quantity])").first
    slider.wait_for()
    settled(page)
    last = player.get_attribute("data-step") or ""
    slider.press("ArrowLeft")
    expect(player).not_to_have_attribute("data-step", last)
    before = player.get_attribute("data-step") or ""
    slider.press("ArrowRight")
    expect(player).not_to_have_attribute("data-step", before)
    slider.press("Home")
    expect(player).to_have_attribute("data-step", "0")
    slider.press("End")
    expect(player).to_have_attribute("data-step", last)
    settled(page)
    button.press("Space")
    expect(button).to_have_accessible_name("Pause")
    assert {keys for where, keys, _ in KEYS if where == "Player"} == {"← →", "Home End", "Space"}


def test_a_table_takes_the_keys_of_the_list(server: str, page: Page) -> None:
    from playwright.sync_api import expect

    table = page.get_by_test_id("stDataFrame").locator("canvas").first
    selected = page.locator("[data-testid=stDataFrame] [role=gridcell][aria-selected=true]")
    until(lambda: selects(server, page, selected), "a cell is selected")
    column = selected.get_attribute("aria-colindex") or ""
    page.keyboard.press("ArrowRight")
    expect(selected).not_to_have_attribute("aria-colindex", column)
    page.keyboard.press("Shift+Space")
    expect(page.get_by_role("button", name="Export")).to_be_visible()
    settled(page)
    click(table, STATUS_AT)
    page.keyboard.press("Control+f")
    expect(page.get_by_test_id("search-input")).to_be_visible()
    assert {keys for where, keys, _ in KEYS if where == "Table"} == {"← → ↑ ↓", "Shift Space", "Ctrl F"}


def test_arrow_keys_lead_through_the_screens_of_a_presentation_and_escape_ends_it(server: str, page: Page) -> None:
    from playwright.sync_api import expect

    page.goto(f"{server}/run?run={OTHER}")
    settled(page)
    page.get_by_role("link", name="Present", exact=True).click()
    expect(page.get_by_text("Does dynamic help?")).to_be_visible()
    expect(page.get_by_test_id("stSidebar")).to_be_hidden()
    expect(page.get_by_role("button", name="Previous")).to_be_disabled()
    size = "getComputedStyle(document.documentElement).fontSize"
    assert page.evaluate(size) != "16px"
    page.keyboard.press("ArrowRight")
    expect(page.locator(".replay.large")).to_be_visible()
    assert "present=2" in page.url
    page.keyboard.press("ArrowLeft")
    expect(page.get_by_text(re.compile(r"^1 of \d+$"))).to_be_visible()
    page.get_by_role("button", name="Next").click()
    page.get_by_text(re.compile(r"^2 of \d+$")).wait_for()
    page.keyboard.press("Escape")
    page.locator(".st-key-card-strip").wait_for()
    expect(page.get_by_test_id("stSidebar")).to_be_visible()
    assert page.evaluate(size) == "16px"
    assert "present" not in page.url
    assert {keys for where, keys, _ in KEYS if where == "Present"} == {"← →", "Esc"}


def test_the_menu_lists_the_keys(server: str, page: Page) -> None:
    from playwright.sync_api import expect

    page.goto(f"{server}/methods")
    settled(page)
    page.get_by_role("button", name="Keyboard").click()
    for _, _, words in KEYS:
        line = page.get_by_role("listitem").filter(has_text=re.compile(rf"{re.escape(words)}$"))
        expect(line.first).to_be_visible()


def test_a_name_in_the_list_opens_the_run(server: str, page: Page) -> None:
    click(table_of_runs(server, page), NAME_AT)
    page.wait_for_url(f"{server}/run?run={OTHER}")
    page.get_by_role("heading", name="another run", level=1).wait_for()
    page.go_back()
    page.get_by_role("heading", name="Runs", level=1).wait_for()


@pytest.mark.journey
def test_the_middle_button_on_a_name_opens_the_run_in_another_tab(server: str, page: Page) -> None:
    from playwright.sync_api import expect

    table = table_of_runs(server, page)
    address = page.locator('.st-key-list canvas tr[aria-rowindex="2"] td', has_text=f"run?run={OTHER}")
    expect(address).to_be_attached()  # the canvas gets its cells for screen readers a little after it is drawn
    with page.context.expect_page() as opened:
        table.click(position={"x": NAME_AT, "y": ROW_HEIGHT + HALF}, button="middle", force=True)
    opened.value.wait_for_url(f"{server}/run?run={OTHER}")
    opened.value.close()
    assert page.url.startswith(f"{server}/runs?"), "this tab stays"


def test_a_narrow_window_has_the_whole_names_as_links(server: str, page: Page) -> None:
    from playwright.sync_api import expect

    table_of_runs(server, page)
    link = page.locator(".dl-names a")
    expect(link).to_be_hidden()
    show(page, 375, 812)
    expect(link).to_have_text("another run")
    link.click()
    page.wait_for_url(f"{server}/run?run={OTHER}")
