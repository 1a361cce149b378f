"""Every button of every page is pressed once, and the page keeps its style: the sheet, the sizes, no chart on top."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.browser.conftest import settled
from tests.pages.app import PAGES, RUN_PAGES
from tests.waiting import until

if TYPE_CHECKING:
    from playwright.sync_api import Page

BUTTONS = ", ".join(
    f"[data-testid={place}] button:not([disabled])"
    for place in ("stButton", "stDownloadButton", "stFormSubmitButton", "stPopover", "stButtonGroup")
) + ", .dynlora-tools button"  # fmt: skip
"""Buttons that dynlora draws. Streamlit's own need no server: those of its tables, steppers, lists and tooltips."""

NOT_PRESSED = {
    r"^Move to trash$|^Delete": "takes the run away that the other pages show",
    r"^Start\b|^Queue|^Add seeds|^Decode$|^Recycle$|^Measure|^Train": "starts a job of minutes on the built-in models",
    r"^Check\b|^Search$|^Predict$|^Suggest|^Show tokens|^Download and": "loads a built-in model, or asks the hub",
    r"^PNG$|^SVG$|^Full screen": "is the same script for every chart: see test_chart_tools.py",
}
"""Labels that are left out, and why."""

STYLE = """() => {
  const main = document.querySelector('[data-testid=stMain]'), heading = main && main.querySelector('h1');
  if (!heading) return {};  // another page is being drawn
  const above = [...main.querySelectorAll('.js-plotly-plot, canvas, iframe')].filter(
    one => one.offsetParent && one.getBoundingClientRect().top < heading.getBoundingClientRect().top);
  return {
    heading: getComputedStyle(heading).fontSize,
    sidebar: Math.round(document.querySelector('[data-testid=stSidebar]').getBoundingClientRect().width / 10) * 10,
    padding: getComputedStyle(document.querySelector('[data-testid=stMainBlockContainer]')).paddingTop,
    charts_on_top: above.length,
  };
}"""
"""What of a page's look goes when its style sheet does."""


LABELS = """([part, buttons]) => [...document.querySelectorAll(part)].flatMap(
  root => [...root.querySelectorAll(buttons)]).map((button, place) => {
    const copy = button.cloneNode(true);
    copy.querySelectorAll('[data-testid=stIconMaterial]').forEach(icon => icon.remove());
    const label = (copy.textContent || button.getAttribute('aria-label') || button.title).trim();
    const keyed = button.closest('[class*=st-key-]');
    const key = [...keyed.classList].find(name => name.startsWith('st-key-')) + label;
    return {key, label, place, visible: button.offsetParent !== null};
  }).filter(one => one.visible)"""
"""Returns the buttons of a part of the page: what they say, without the names of icons, and where they are."""

MARK = """([part, buttons, place]) => {
  document.querySelectorAll('[data-next]').forEach(one => one.removeAttribute('data-next'));
  [...document.querySelectorAll(part)].flatMap(root => [...root.querySelectorAll(buttons)])[place].dataset.next = '';
}"""


@pytest.mark.journey
def test_every_button_leaves_the_page_in_its_style(server: str, page: Page, trained_run: Path, runs_dir: Path) -> None:
    shutil.copytree(trained_run, runs_dir / trained_run.name)
    pressed: dict[str, list[str]] = {}
    for name in PAGES:
        run = f"?run={trained_run.name}" if name in RUN_PAGES else ""
        pressed[name] = list(_press_all(page, f"{server}/{'' if name == 'home' else name}{run}"))
    for page_name, label in (("run", "Adapter"), ("run", "Merged model"), ("run", "Results"), ("launch", "Experiment")):
        assert label in pressed[page_name], pressed
    assert sum(map(len, pressed.values())) > 60, pressed
    sys.stdout.write(f"pressed: {pressed}\n")


def _press_all(page: Page, address: str) -> Iterator[str]:
    """Press each button of a page once, those that another reveals too, and yield their labels."""
    _open(page, address)
    style = page.evaluate(STYLE)
    assert (style["heading"], style["sidebar"], style["charts_on_top"]) == ("27.2px", 190, 0), address
    done: set[str] = set()
    while (label := _next(page, done) or _again(page, address, done)) is not None:
        page.locator("[data-next]").evaluate("button => button.click()")  # a table's tools may lie over it
        settled(page)
        until(lambda: page.evaluate(STYLE) == style, f"the style of {address} after {label!r}", patience_s=20)
        yield label
        if not _is_on(page, address):
            _open(page, address)


def _open(page: Page, address: str) -> None:
    page.goto(address)
    page.get_by_role("heading", level=1).wait_for()
    settled(page)
    until(lambda: page.evaluate(STYLE).get("heading") == "27.2px", f"the style of {address}")
    settled(page)


def _again(page: Page, address: str, done: set[str]) -> str | None:
    """Return the next button of the page as it was at first: a press may have led to another part of it."""
    if page.url != address:
        _open(page, address)
    return _next(page, done)


def _next(page: Page, done: set[str]) -> str | None:
    """Mark a button that was not pressed yet and return its label: one of an open popover first, then of the page."""
    for part in ("[data-testid=stPopoverBody]", "[data-testid=stMain]", "[data-testid=stSidebar]"):
        found: list[dict[str, str]] = page.evaluate(LABELS, [part, BUTTONS])
        for one in found:
            if one["key"] in done:
                continue
            done.add(one["key"])
            if not any(re.search(pattern, one["label"]) for pattern in NOT_PRESSED):
                page.evaluate(MARK, [part, BUTTONS, one["place"]])
                return one["label"]
        if found and part == "[data-testid=stPopoverBody]":
            page.keyboard.press("Escape")
    return None


def _is_on(page: Page, address: str) -> bool:
    return page.url.partition("?")[0].rstrip("/") == address.partition("?")[0].rstrip("/")
