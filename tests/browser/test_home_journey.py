"""The Home page in a browser: the picture plays by itself, old links arrive, it fits and follows a run."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.browser.conftest import IS_DARK, Picture, Window, settled
from tests.viz.growing import RUN, Running

if TYPE_CHECKING:
    from playwright.sync_api import Page

STEP = "element => Number(element.dataset.step)"


AGAIN = """element => new Promise(done => {
  let before = Number(element.dataset.step), fell = 0;
  new MutationObserver(() => {
    const step = Number(element.dataset.step);
    fell += step < before;
    before = step;
    if (fell && step > 0) done();
  }).observe(element, { attributes: true });
})"""
"""Waits until the picture has reached its end and begun again."""


@pytest.mark.journey
def test_the_picture_plays_by_itself_and_says_within_a_minute_without_scrolling_what_moves_and_whether_it_helps(
    server: str, window: Window, picture: Picture
) -> None:
    page = window(1400, 900, reduced_motion="no-preference").new_page()
    requests: list[str] = []
    page.goto(server)
    player = page.locator(".replay")
    player.get_by_role("button", name="Pause").wait_for()
    settled(page)
    page.on("request", lambda request: requests.append(request.url))
    sentence = page.locator(".replay .speech p")
    for words in ("Its number is its rank", "share one budget", "gives", "At the end"):
        sentence.filter(has_text=words).first.wait_for(timeout=60_000)
        box = sentence.first.bounding_box()
        assert box is not None
        assert 0 <= box["y"] <= 900 - box["height"], words
        picture(page, f"home-says-{words.replace(' ', '-').lower()}")
    figure = page.get_by_role("heading", name=re.compile(r"Undecided: [+−]\d\.\d points against lora")).first
    for box in (figure.bounding_box(), page.get_by_role("link", name="Test yours").bounding_box()):
        assert box is not None
        assert box["y"] + box["height"] <= 900
    player.evaluate(AGAIN)
    assert requests == []
    assert "step=" not in page.url
    player.get_by_role("button", name="Pause").click()
    player.get_by_role("button", name="Play training").wait_for()


@pytest.mark.journey
def test_a_run_that_trains_appears_on_home_by_itself(server: str, runs_dir: Path, page: Page) -> None:
    """It is what `make demo` opens: the run is started after the page."""
    page.goto(server)
    page.get_by_text("Rank over training").wait_for()
    run = Running(runs_dir)
    run.advance(12)
    page.get_by_text("Training now: grows").wait_for()
    page.locator(".replay[data-step='12']").wait_for()
    run.advance(20)
    page.locator(".replay[data-step='20']").wait_for()
    page.get_by_role("link", name="See rank move").click()
    page.wait_for_url(f"{server}/capacity?run={RUN}")
    run.writer.finish("finished")
    run.writer.close()


@pytest.mark.journey
def test_the_mode_is_switched_in_the_menu(server: str, page: Page) -> None:
    page.goto(server)
    settled(page)
    page.get_by_test_id("stMainMenu").click()
    page.get_by_text("Dark").click()
    page.wait_for_function(IS_DARK, arg=True)
