"""What charts do in the browser alone: the step under the pointer and of the player, files, the full screen; keys."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import pytest

from dynlora.viz.ui.frame import KEYS, PAGES
from tests.browser.conftest import OTHER, settled, show
from tests.waiting import until

if TYPE_CHECKING:
    from playwright.sync_api import Page

MANY = "20261205-151835-85d82515"
"""A sample of 210 modules in 30 layers."""

MARKS = """() => [...document.querySelectorAll('.dynlora-mark')].filter(mark => mark.style.display === 'block')
  .map(mark => [mark.closest('[class*=st-key-card-]').className.match(/st-key-card-(\\S+)/)[1], mark.innerText])"""
"""The charts that mark a step now: the card, and the words at the mark."""


WATCH = """() => {
  window.drawn = 0;
  const app = document.querySelector('[data-testid=stApp]');
  new MutationObserver(() => { window.drawn += 1; }).observe(app, { attributeFilter: ['data-test-script-state'] });
}"""


def marks(page: Page) -> dict[str, str]:
    return {card: words for card, words in page.evaluate(MARKS)}


def watch_drawing(page: Page) -> None:
    """Count how often the server draws the page from now on."""
    page.evaluate(WATCH)


def open_chart(page: Page, address: str, card: str) -> Any:
    page.goto(address)
    chart = page.locator(f'[class*="st-key-card-{card}"] .js-plotly-plot .main-svg').first
    chart.wait_for()
    settled(page)
    chart.scroll_into_view_if_needed()
    return chart


@pytest.mark.journey
def test_the_step_under_the_pointer_is_marked_in_all_charts_and_asks_the_server_for_nothing(
    server: str, page: Page
) -> None:
    chart = open_chart(page, f"{server}/run?run={OTHER}", "loss")
    watch_drawing(page)

    def are_marked() -> bool:
        """Point again: what is drawn above the chart may still move it on a busy machine."""
        box = chart.bounding_box()
        for share in (0.5, 0.52):
            page.mouse.move(box["x"] + share * box["width"], box["y"] + 0.6 * box["height"])
        page.wait_for_timeout(200)
        return len(marks(page)) > 2

    until(are_marked)
    words = marks(page)
    assert {"metric", "kinds"} <= set(words)
    assert words.pop("loss") == "", "the chart under the pointer has plotly's own label"
    assert len(set(words.values())) == 1
    page.mouse.move(1, 1)
    page.wait_for_function(f"() => ({MARKS})().length === 0")
    assert page.evaluate("window.drawn") == 0


def test_playing_moves_the_other_pictures_of_capacity(server: str, page: Page) -> None:
    open_chart(page, f"{server}/capacity?run={OTHER}&section=transfers", "scatter")
    watch_drawing(page)
    slider = page.locator(".replay input")
    slider.evaluate("slider => { slider.value = 0; slider.oninput(); }")
    first = page.evaluate("() => document.querySelector('.st-key-card-scatter .js-plotly-plot').data.map(one => one.y)")
    assert marks(page)["map-rank"] == marks(page)["scatter"] == "step 0"
    assert len({round(y, 6) for trace in first if isinstance(trace, list) for y in trace}) == 1, "equal ranks at step 0"
    assert page.evaluate("window.drawn") == 0


def of_address(page: Page) -> dict[str, str]:
    """Return what the address chooses: module, step, steps."""
    query = {name: values[-1] for name, values in parse_qs(urlsplit(page.url).query).items()}
    return {name: query[name] for name in ("module", "step", "steps") if name in query}


def at(page: Page, card: str, across: float, down: float) -> tuple[float, float]:
    """Return a point of a chart's picture, in shares of its width and height, once it is in sight."""
    chart = page.locator(f'[class*="st-key-card-{card}"] .js-plotly-plot').first
    chart.scroll_into_view_if_needed()
    box = chart.bounding_box()
    assert box is not None
    return box["x"] + across * box["width"], box["y"] + down * box["height"]


def brush(page: Page, card: str) -> None:
    """Draw over the middle fifth of a chart."""
    page.mouse.move(*at(page, card, 0.4, 0.6))
    page.mouse.down()
    page.mouse.move(*at(page, card, 0.6, 0.6), steps=8)
    page.mouse.up()


def test_a_click_on_a_cell_or_a_band_chooses_and_steps_drawn_over_are_those_of_the_page(
    server: str, page: Page
) -> None:
    open_chart(page, f"{server}/capacity?run={OTHER}&section=transfers&flow=module", "map")

    def chooses(card: str, across: float, down: float, names: set[str]) -> bool:
        """Click until the page has drawn a chart that takes it."""
        page.mouse.click(*at(page, card, across, down))
        page.wait_for_timeout(700)
        settled(page)
        return set(of_address(page)) == names

    until(lambda: chooses("map", 0.5, 0.5, {"module", "step"}), "a cell was chosen")
    assert int(of_address(page)["step"]) > 0
    page.go_back()
    page.wait_for_url(lambda url: "module=" not in url)
    assert not of_address(page), "one step back takes both back"
    page.go_forward()
    page.wait_for_url(lambda url: "module=" in url)
    settled(page)
    page.locator(".st-key-address-module").get_by_text("All modules").wait_for(state="hidden")
    until(lambda: chooses("map", 0.5, 0.5, set()), "a second click takes it back")
    brush(page, "map")
    page.wait_for_url(lambda url: "steps=" in url)
    settled(page)
    first, last = of_address(page)["steps"].split("-")
    assert 0 < int(first) < int(last)
    page.mouse.dblclick(*at(page, "map", 0.5, 0.5))
    page.wait_for_url(lambda url: "steps=" not in url)
    assert not of_address(page), "a double click chooses no cell"


ROW = """(layer) => {
  const plot = document.querySelector('[class*="st-key-card-map"] .js-plotly-plot'), axis = plot._fullLayout.yaxis;
  const { places, positions } = plot.data[0].meta, box = plot.getBoundingClientRect();
  return [box.left + box.width / 2, box.top + axis._offset + axis.l2p(places[layer]), positions.length];
}"""
"""The middle of a layer's row in the map, and how many rows there are."""


def test_the_keys_of_a_presentation_cover_nothing_on_a_phone(server: str, page: Page) -> None:
    show(page, 375, 450)
    page.goto(f"{server}/run?run={MANY}&present=2")
    page.get_by_role("button", name="Play").wait_for()
    settled(page)
    keys = page.locator(".st-key-present-keys").bounding_box()
    assert keys is not None
    assert keys["y"] + keys["height"] == pytest.approx(450, abs=1), "they stay at the bottom"
    last = page.locator(".replay.large")
    last.evaluate("element => element.scrollIntoView({ block: 'end' })")
    page.get_by_test_id("stMain").evaluate("element => element.scrollTo(0, element.scrollHeight)")
    picture = last.bounding_box()
    assert picture is not None
    assert picture["height"] > 450, "it is deeper than the screen"
    assert picture["y"] + picture["height"] <= keys["y"], "its end is above them"


@pytest.mark.journey
def test_a_click_opens_a_layer_and_chooses_a_kind(server: str, page: Page) -> None:
    open_chart(page, f"{server}/capacity?run={MANY}", "map")

    def rows_after_a_click(layer: int) -> int:
        """Click on the row of a layer and return how many rows the map has then."""
        x, y, _ = page.evaluate(ROW, layer)
        page.mouse.click(x, y)
        page.wait_for_timeout(700)
        settled(page)
        return page.evaluate(ROW, 0)[2]

    until(lambda: rows_after_a_click(1) == 37, "a layer was opened")
    assert parse_qs(urlsplit(page.url).query)["open"] == ["1"]
    until(lambda: rows_after_a_click(1) == 30, "a second click closes it")
    open_chart(page, f"{server}/run?run={OTHER}", "kinds")

    def kinds_after_a_click() -> list[str]:
        """Click into the chart of ranks by kind and return the kinds in the address."""
        page.mouse.click(*at(page, "kinds", 0.6, 0.7))
        page.wait_for_timeout(700)
        settled(page)
        return parse_qs(urlsplit(page.url).query).get("kind", [])

    until(lambda: kinds_after_a_click() != [], "a kind was chosen")
    page.get_by_role("button", name="Show all").click()
    page.wait_for_url(lambda url: "kind=" not in url)


@pytest.mark.journey
def test_a_chart_is_saved_and_shown_on_the_full_screen(server: str, page: Page, tmp_path: Path) -> None:
    open_chart(page, f"{server}/run?run={OTHER}", "loss")
    menu = page.locator(".st-key-table-loss").get_by_role("button", name="Menu")
    tools = page.locator(".st-key-csv-loss .dynlora-tools")

    def is_open() -> bool:
        """Open the menu: a file that is saved closes it."""
        if not tools.is_visible():
            menu.press("Enter")
            page.wait_for_timeout(300)
        return tools.is_visible()

    for label, starts in (("Save as PNG", b"\x89PNG"), ("Save as SVG", b"<svg")):
        until(is_open, "the menu")
        with page.expect_download() as saved:
            tools.get_by_role("button", name=label).click()
        saved.value.save_as(tmp_path / "chart")
        assert (tmp_path / "chart").read_bytes().startswith(starts)
        assert saved.value.suggested_filename == f"loss.{label[-3:].lower()}"
    until(is_open, "the menu")
    tools.get_by_role("button", name="Full screen").click()
    sheet = page.locator(".dynlora-full")
    sheet.locator(".main-svg").first.wait_for()
    box = sheet.locator(".main-svg").first.bounding_box()
    assert box is not None
    assert box["height"] > 600
    assert "Training loss" in sheet.inner_text()
    sheet.get_by_role("button", name="Close").click()
    sheet.wait_for(state="detached")
    until(is_open, "the menu")
    page.get_by_role("button", name="Table", exact=True).press("Enter")
    dialog = page.get_by_role("dialog").filter(has=page.get_by_test_id("stDataFrame"))
    dialog.wait_for()
    assert "Training loss" in dialog.inner_text()
    page.wait_for_function("() => !document.querySelector('.st-key-csv-loss')")
    page.keyboard.press("Escape")
    dialog.wait_for(state="detached")


def press_both(page: Page, letter: str, address: str) -> None:
    """Press G and a letter until the page is open: a busy machine may take longer between them than they may take."""
    from playwright.sync_api import TimeoutError as TookLonger

    def is_open() -> bool:
        page.keyboard.press("g")
        page.keyboard.press(letter)
        try:
            page.wait_for_url(lambda url: url.partition("?")[0] == address, timeout=5000)
        except TookLonger:
            return False
        return True

    until(is_open, address)
    settled(page)


@pytest.mark.journey
def test_the_keys_of_the_list_work_anywhere_but_in_a_field(server: str, page: Page) -> None:
    page.goto(f"{server}/methods")
    page.wait_for_function("() => window.dynloraKeys")
    settled(page)
    for letter, name in (("r", "runs"), ("m", "compare"), ("h", "")):
        press_both(page, letter, f"{server}/{name}")
    press_both(page, "r", f"{server}/runs")
    page.locator(".st-key-address-q input").wait_for()
    page.keyboard.press("/")
    search = page.locator(".st-key-address-q input")
    page.wait_for_function("() => document.activeElement.matches('.st-key-address-q input')")
    page.keyboard.type("gm?/")
    assert search.input_value() == "gm?/"
    assert page.url.startswith(f"{server}/runs")
    search.evaluate("field => field.blur()")
    page.keyboard.press("?")
    page.get_by_text("Keyboard shortcuts").wait_for()
    anywhere = {keys for where, keys, _ in KEYS if where == "Anywhere"}
    assert anywhere == {*(f"G {letter.upper()}" for letter in PAGES), "/", "?", "Space"}


def test_space_starts_the_player_and_stops_it_at_a_step_of_the_address(server: str, page: Page) -> None:
    open_chart(page, f"{server}/capacity?run={OTHER}", "map")
    button = page.locator(".replay .controls button").first
    button.wait_for()
    for name in ("Pause", "Play training"):
        page.keyboard.press("Space")
        page.locator(f".replay button[aria-label='{name}']").wait_for()
    page.wait_for_url(lambda url: "step=" in url)
    assert button.is_visible()
