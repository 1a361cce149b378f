"""The pages end before anybody tires, their first screens have few words, and no label is cut at any width."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.browser.conftest import fits, settled, show
from tests.pages.test_adapter_page import kept
from tests.peft_adapter.files import small_adapter

if TYPE_CHECKING:
    from playwright.sync_api import Page

HIGHEST = 2100
"""Pixels of a page that is 1,400 wide."""

CLASSIFIER, WRITER, METHOD = "20261205-150635-e9038c42", "20261205-151835-85d82515", "20261205-153548-8c70248c"
"""Samples of 36 modules, of 210 modules, and of a method with figures of its own."""

WIDTHS = "[...document.querySelectorAll('.js-plotly-plot')].map(chart => chart.clientWidth).filter(width => width)"

SHRUNK = "20261205-144905-03e6ddf3"
"""A sample whose sizes were measured."""

CUT = """() => {
  const labels = '[data-testid=stSelectbox] input, button p, [role=tab] p, [data-testid=stPageLink] a p, label p';
  return [...document.querySelectorAll(labels)].filter(element => {
    if (!(element.value || element.innerText || '').trim()) return false;
    if (element.closest('[data-testid=stSidebar]')) return false;  // the name of a run ends in "…" there
    const around = element.closest('button, a, label') || element;
    for (let box = element; box; box = box === around ? null : box.parentElement) {
      const hides = box.tagName === 'INPUT' || getComputedStyle(box).overflowX === 'hidden';
      if (hides && box.clientWidth > 1 && box.scrollWidth > box.clientWidth + 1) return true;
    }
    return false;
  }).map(element => element.value || element.innerText);
}"""
"""Values of lists and labels of buttons, tabs and links of which an end is not in sight."""

HEIGHT = "document.querySelector('[data-testid=stMain]').scrollHeight"


@pytest.mark.parametrize(
    "address",
    [
        *(
            pytest.param(f"{name}?run={run}", marks=() if at == of else pytest.mark.torture)
            for at, name in enumerate(("run", "capacity", "inputs"))
            for of, run in enumerate((METHOD, WRITER, CLASSIFIER))
        ),
        "compare?runs=20261205-150635-e9038c42,20261205-150221-607a9164,20261205-153548-8c70248c",
        "launch",
    ],
)
def test_a_page_is_short_until_something_is_opened(address: str, server: str, page: Page) -> None:
    show(page, 1400, 600)
    page.goto(f"{server}/{address}")
    page.get_by_role("heading", level=1).wait_for()
    settled(page)
    if "run" in address:
        page.locator(".js-plotly-plot:visible").first.wait_for()
        settled(page)
    heights = [0, page.evaluate(HEIGHT)]
    while heights[-1] != heights[-2]:  # charts come one after the other
        page.wait_for_timeout(1000)
        heights.append(page.evaluate(HEIGHT))
    assert 600 < heights[-1] < HIGHEST, heights


PLANTED, CONFLICT = "20261205-144220-e2a46b83", "20261205-153533-21b95200"
"""Samples in which the need for rank is known, and in which inputs are in conflict."""

VIEWS = ("run", "capacity", "inputs", "playground", "shrink")

MOST_WORDS = {
    "": 150,
    **{f"{view}?run={run}": 120 for run in (CLASSIFIER, WRITER, PLANTED, CONFLICT, SHRUNK) for view in VIEWS},
    "decode?run=20261128-170846-96663c96": 120,
    "recycle?run=20261130-213059-06fa8fb1": 120,
}
"""Words that the first screen may have, by its address."""

WORDS = """() => {
  const main = document.querySelector('[data-testid=stMain]'), words = [];
  const nodes = document.createTreeWalker(main, NodeFilter.SHOW_TEXT), range = document.createRange();
  const hides = (element, word) => {
    for (let box = element; box !== main; box = box.parentElement) {
      const around = box.getBoundingClientRect();
      if (getComputedStyle(box).overflow !== 'visible' && (word.top >= around.bottom || word.bottom <= around.top))
        return true;
    }
  };
  while (nodes.nextNode()) {
    const node = nodes.currentNode, element = node.parentElement;
    const isIcon = getComputedStyle(element).fontFamily.includes('Material');
    if (isIcon || !element.checkVisibility({opacityProperty: true, visibilityProperty: true})) continue;
    for (const match of node.data.matchAll(/\\S*[A-Za-z]\\S*/g)) {
      range.setStart(node, match.index);
      range.setEnd(node, match.index + match[0].length);
      const word = range.getBoundingClientRect();
      if (word.width > 1 && word.height > 1 && word.top < innerHeight && word.bottom > 0 && !hides(element, word))
        words.push(match[0]);
    }
  }
  return words;
}"""
"""Words with a letter that are in sight beside the menu; icons are none."""


@pytest.mark.journey
def test_the_first_screen_of_every_view_has_few_words(server: str, page: Page) -> None:
    show(page, 1440, 900)
    too_many = {}
    for address, most in MOST_WORDS.items():
        page.goto(f"{server}/{address}")
        page.get_by_role("heading", level=1).wait_for()
        settled(page)
        counts = [-1, len(page.evaluate(WORDS))]
        while counts[-1] != counts[-2]:  # charts come one after the other
            page.wait_for_timeout(1000)
            settled(page)
            counts.append(len(page.evaluate(WORDS)))
        if counts[-1] > most:
            too_many[address] = page.evaluate(WORDS)
    assert not too_many, {address: (len(words), " ".join(words)) for address, words in too_many.items()}


@pytest.mark.parametrize("width", [700, 780, 1024])
def test_a_middling_window_leaves_charts_and_sentences_their_width(width: int, server: str, page: Page) -> None:
    show(page, width, 900)
    page.goto(f"{server}/run?run={CLASSIFIER}")
    page.locator(".js-plotly-plot:visible").first.wait_for()
    settled(page)
    assert min(page.evaluate(WIDTHS)) > 250
    notice = page.locator('[class*="st-key-health-"] [data-testid="stMarkdownContainer"]', has_text="very low rank")
    assert notice.evaluate("element => element.clientWidth") > 150, "it stood one letter a line"


@pytest.mark.parametrize(
    "address",
    [
        f"capacity?run={CLASSIFIER}",
        f"inputs?run={CLASSIFIER}",
        f"run?run={CLASSIFIER}",
        f"shrink?run={SHRUNK}",
        f"compare?runs=20261205-150635-e9038c42,20261205-150221-607a9164,{METHOD}",
        *(
            pytest.param(address, marks=pytest.mark.torture)
            for address in ("", "runs", "launch", f"playground?run={SHRUNK}", "decode", "recycle", "tour", "methods")
        ),
    ],
)
def test_no_label_is_cut_at_any_width(address: str, server: str, page: Page) -> None:
    show(page, 1024, 900)
    page.goto(f"{server}/{address}")
    page.locator("h1, h2").first.wait_for()
    settled(page)
    for width in (1024, 780, 375):
        show(page, width, 900)
        settled(page)
        assert page.evaluate(CUT) == [], f"at {width} pixels"


@pytest.mark.parametrize(
    "address",
    [
        *(
            f"compare?runs=20261205-150635-e9038c42,20261205-150221-607a9164,{METHOD}&section={section}"
            for section in ("paper", "sweeps")
        ),
        "decode?run=20261128-170846-96663c96",
        "recycle?run=20261130-213059-06fa8fb1",
    ],
)
def test_tables_sweeps_and_other_kinds_fit_a_telephone(address: str, server: str, page: Page) -> None:
    show(page, 375, 900, "dark")
    page.goto(f"{server}/{address}")
    page.locator('[class*="st-key-under-"]').last.wait_for()
    fits(page, "dark")


def test_an_adapter_that_was_brought_along_fits_a_telephone(
    server: str, page: Page, runs_dir: Path, tmp_path: Path
) -> None:
    adapter = kept(runs_dir, small_adapter(tmp_path / "adapter", layers=6))
    show(page, 375, 900, "dark")
    page.goto(f"{server}/capacity?adapter={adapter}")
    page.locator(".js-plotly-plot:visible").nth(2).wait_for()
    fits(page, "dark")
