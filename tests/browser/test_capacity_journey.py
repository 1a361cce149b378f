"""The Capacity page in a browser: the replay plays by itself, a range re-bins the map, the flow adds up."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tests.browser.conftest import OTHER, Picture, settled, show

if TYPE_CHECKING:
    from playwright.sync_api import Page


SAMPLE = "20261205-150635-e9038c42"
"""A sample of 36 modules."""


def _open(page: Page, address: str) -> list[str | bytes]:
    """Open a page and return the list of messages that it sends to the server from now on."""
    from playwright.sync_api import expect

    sent: list[str | bytes] = []
    page.on("websocket", lambda socket: socket.on("framesent", lambda message: sent.append(message)))
    page.goto(address)
    expect(page.locator('[class*="st-key-card-flow"] .js-plotly-plot')).to_be_visible()
    settled(page)
    sent.clear()
    return sent


@pytest.mark.journey
def test_the_replay_plays_without_the_server_and_its_step_can_be_linked(
    server: str, page: Page, other_page: Page, picture: Picture
) -> None:
    from playwright.sync_api import expect

    sent = _open(page, f"{server}/capacity?run={OTHER}&section=transfers")
    player = page.locator(".replay")
    fills = "cells => cells.map(cell => cell.getAttribute('fill')).join()"
    slider = player.get_by_role("slider", name="Step shown")
    expect(slider).to_have_attribute("aria-valuetext", "step 40")
    at_the_end = player.locator("rect.cell").evaluate_all(fills)
    player.get_by_role("button", name="Play training").click()
    expect(slider).to_have_attribute("aria-valuetext", re.compile(r"step ([1-9])$"))
    assert player.locator("rect.cell").evaluate_all(fills) != at_the_end
    assert sent == [], "playing must ask the server for nothing"
    picture(page, "capacity-replay")
    player.get_by_role("button", name="Pause").click()
    expect(page).to_have_url(re.compile(r"step=\d+"))
    step = int(re.findall(r"step=(\d+)", page.url)[0])
    assert 0 < step < 40
    assert len(sent) >= 1
    expect(page.get_by_role("heading", name=f"Rank and importance at step {step}")).to_be_visible()

    show(other_page)
    other_page.goto(page.url)
    expect(other_page.locator(".replay").get_by_role("slider", name="Step shown")).to_have_attribute(
        "aria-valuetext",
        f"step {step}",
    )


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

    _open(page, f"{server}/capacity?run={OTHER}&section=transfers")
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
