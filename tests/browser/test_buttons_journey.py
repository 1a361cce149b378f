"""Every button of every page is pressed once, and the page keeps its style: the sheet, the sizes, no chart on top."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.browser.conftest import OTHER, settled
from tests.pages.app import OPENERS, PAGES, RUN_PAGES
from tests.viz.growing import RUN, Running
from tests.waiting import until

if TYPE_CHECKING:
    from playwright.sync_api import Page

BUTTONS = (
    ":is([data-testid=stButton], [data-testid=stDownloadButton], [data-testid=stFormSubmitButton], "
    "[data-testid=stPopover], [data-testid=stButtonGroup]) button:not([disabled]), .dynlora-tools button"
)
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
    chart => chart.offsetParent && chart.getBoundingClientRect().top < heading.getBoundingClientRect().top);
  return {
    heading: getComputedStyle(heading).fontSize,
    sidebar: Math.round(document.querySelector('[data-testid=stSidebar]').getBoundingClientRect().width / 10) * 10,
    padding: getComputedStyle(document.querySelector('[data-testid=stMainBlockContainer]')).paddingTop,
    charts_on_top: above.length,
  };
}"""
"""What of a page's look goes when its style sheet does."""


PRESS = """([part, buttons, done, left_out]) => {
  const pressed = [];
  for (const root of document.querySelectorAll(part)) for (const button of root.querySelectorAll(buttons)) {
    const copy = button.cloneNode(true);
    copy.querySelectorAll('[data-testid=stIconMaterial]').forEach(icon => icon.remove());
    const label = (copy.textContent || button.getAttribute('aria-label') || button.title).trim();
    const key = [...button.closest('[class*=st-key-]').classList].find(name => name.startsWith('st-key-')) + label;
    if (!button.offsetParent || done.includes(key)) continue;
    pressed.push({key, label});
    if (left_out.some(pattern => new RegExp(pattern).test(label))) continue;
    const opens = Boolean(button.closest('[data-testid=stPopover]'));
    button.click();  // in the same moment: a page that is drawn again replaces its buttons
    return {pressed, label, opens};
  }
  return {pressed, label: null, is_there: Boolean(document.querySelector(part))};
}"""
"""Presses the first button of a part of the page that was not pressed: its label, without the names of icons."""


OPENED = """async () => {
  for (let frame = 0; frame < 60; frame++) {
    const body = document.querySelector('[data-testid=stPopoverBody]');
    if (body && body.innerText.trim()) return true;
    await new Promise(requestAnimationFrame);
  }
  return false;
}"""
"""Waits for what a button opened, and says whether it came; frames, as a busy browser draws few of them."""

NAMED = {
    "run": {"Adapter", "Merged model", "Table"},
    "launch": {"Experiment", "Sweep"},
    "playground": {"Table"},
}
"""Labels that are pressed on a page in any case."""

FEWEST = {"run": 14, "capacity": 15, "inputs": 15, "compare": 15, "playground": 8, "decode": 8}
"""Presses on a page at least; of the others one."""


@pytest.mark.journey
@pytest.mark.parametrize("name", PAGES)
def test_every_button_leaves_its_page_in_its_style(
    name: str, server: str, page: Page, trained_run: Path, runs_dir: Path
) -> None:
    shutil.copytree(trained_run, runs_dir / trained_run.name)
    query = f"?run={trained_run.name}" if name in RUN_PAGES else ""
    if name == "compare":  # the samples beside them would draw the same charts with more lines
        query = f"?runs={trained_run.name}%2C{OTHER}"
    query += "&text=great+lovely" if name == "playground" else ""
    query += "".join(f"&{key}={part}" for key, parts in OPENERS.get(name, {}).items() for part in parts)
    named = NAMED.get(name, set())
    pressed = list(_press_all(page, f"{server}/{'' if name == 'home' else name}{query}", named))
    assert named <= set(pressed), pressed
    assert len(pressed) >= FEWEST.get(name, 1), pressed


@pytest.mark.journey
@pytest.mark.parametrize("name", RUN_PAGES[:3])
def test_every_button_of_a_run_that_trains_leaves_its_page_in_its_style(
    name: str, server: str, page: Page, runs_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(NOT_PRESSED, r"^Stop$", "would signal the process that writes this run: see test_journey.py")
    run = Running(runs_dir)
    run.advance(22)
    try:
        query = f"?run={RUN}" + "".join(
            f"&{key}={part}" for key, parts in OPENERS.get(name, {}).items() for part in parts
        )
        pressed = list(_press_all(page, f"{server}/{name}{query}", set()))
    finally:
        run.writer.finish("stopped", None)
    assert len(pressed) >= 8, pressed


def _press_all(page: Page, address: str, named: set[str]) -> Iterator[str]:
    """Press each button of a page once, those that another reveals too, and yield their labels.

    On a busy machine a page may rest with its heading alone: while a named button is missing, more of it is to come.
    """
    _open(page, address)
    style = page.evaluate(STYLE)
    assert (style["heading"], style["sidebar"], style["charts_on_top"]) == ("27.2px", 190, 0), address
    done: set[str] = set()
    missing = set(named)
    while (label := _press_next(page, done) or _press_again(page, address, done, missing)) is not None:
        missing.discard(label)
        settled(page)
        until(lambda: page.evaluate(STYLE) == style, f"the style of {address} after {label!r}")
        yield label
        if not _is_on(page, address):
            _open(page, address)


def _open(page: Page, address: str) -> None:
    page.goto(address)
    page.get_by_role("heading", level=1).wait_for()
    settled(page)
    until(lambda: page.evaluate(STYLE).get("heading") == "27.2px", f"the style of {address}")
    settled(page)


def _press_again(page: Page, address: str, done: set[str], missing: set[str]) -> str | None:
    """Press the next button of the page as it was at first: a press may have led elsewhere."""
    _open(page, address)
    labels = [_press_next(page, done)]
    if missing and labels[-1] is None:
        until(lambda: labels.append(_press_next(page, done)) or labels[-1], f"a button of {address}: {missing}")
    return labels[-1]


def _press_next(page: Page, done: set[str]) -> str | None:
    """Press a button that was not pressed yet and return its label: one of an open popover first, then of the page.

    A dialog is closed before: behind it a popover closes as soon as it opens. A page that is drawn just then opens it
    again, and a key is pressed once more, as a user would.
    """
    dialog = page.get_by_test_id("stDialog")
    until(lambda: not dialog.count() or page.keyboard.press("Escape"), "a closed dialog", pause_s=0.5)
    for part in ("[data-testid=stPopoverBody]", "[data-testid=stMain]", "[data-testid=stSidebar]"):
        answer = page.evaluate(PRESS, [part, BUTTONS, sorted(done), list(NOT_PRESSED)])
        done.update(button["key"] for button in answer["pressed"])
        if answer["label"] is not None:
            key = answer["pressed"][-1]["key"]
            if answer["opens"] and not page.evaluate(OPENED) and f"{key}, again" not in done:
                done.add(f"{key}, again")  # a page that was just being drawn has closed it: once more
                done.discard(key)
            return answer["label"]
        if answer["is_there"] and part == "[data-testid=stPopoverBody]":
            page.keyboard.press("Escape")
    return None


def _is_on(page: Page, address: str) -> bool:
    return page.url.partition("?")[0].rstrip("/") == address.partition("?")[0].rstrip("/")
