"""Three runs decode together in a browser: picked, watched, looked at step by step, and tried with a typed problem."""

from __future__ import annotations

import re
import shutil
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from dynlora.jobs.queue import read_status
from dynlora.kinds.decode.result import read_decode
from dynlora.kinds.decode.settings import DecodeSettings
from dynlora.text import one_line
from tests.browser.conftest import MODES, Picture, fits, settled, show
from tests.conftest import Once
from tests.kinds.decode.conftest import made_roles
from tests.waiting import until

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

ROLES = ("draft", "target", "judge")


@pytest.fixture
def roles(once: Once, runs_dir: Path) -> dict[str, str]:
    """Ids of tiny runs of every role in the runs folder of the test."""
    place = once.made("roles", made_roles)
    ids = {name: (place / name).read_text("utf-8") for name in ROLES}
    for run_id in ids.values():
        shutil.copytree(place / "runs" / run_id, runs_dir / run_id)
    return ids


def choose(page: Page, key: str, text: str) -> None:
    """Pick an option of the drop-down list of a key by a part of its text; what is drawn above a list closes it."""
    from playwright.sync_api import TimeoutError as NotThere

    box = page.locator(f".st-key-{key}").get_by_role("combobox")

    def is_chosen() -> bool:
        settled(page)
        if text in (box.input_value() or box.inner_text()):
            return True
        try:
            box.click(timeout=5000)
            page.get_by_role("option").filter(has_text=text).first.click(timeout=5000)
        except NotThere:
            page.keyboard.press("Escape")
        return False

    until(is_chosen, f"{text} in {key}")


def card(page: Page, key: str) -> Locator:
    """Return a card."""
    return page.locator(f".st-key-card-{key}")


@pytest.mark.journey
def test_a_user_decodes_with_three_runs_and_opens_a_rejected_step(
    server: str, page: Page, picture: Picture, runs_dir: Path, roles: dict[str, str]
) -> None:
    from playwright.sync_api import expect

    page.goto(f"{server}/decode")
    settled(page)
    page.locator("summary").filter(has_text="New decode").click()  # a sample is shown first
    settled(page)
    choose(page, "decode-draft", "the draft")
    choose(page, "decode-target", "the target")
    choose(page, "decode-reward", "the judge")
    choose(page, "decode-values", "0.3, 0.5, 0.7, 0.9")
    choose(page, "decode-limit", "20")
    page.get_by_role("button", name="Start decoding").click()
    expect(page).to_have_url(re.compile(r"run=[\w-]+"))
    run_id = re.search(r"run=([\w-]+)", page.url)
    assert run_id is not None
    folder = runs_dir / run_id[1]
    assert DecodeSettings.of_run(folder).reward == roles["judge"]
    until(lambda: read_status(folder).status == "finished", "the end of the decode")
    expect(page.locator(".st-key-decode-head")).to_contain_text("finished")
    decode = read_decode(folder)
    assert len(decode.solutions) == len(decode.points) * 20
    settled(page)
    expect(card(page, "conclusion")).to_contain_text(re.compile("target"))
    _opens_a_rejected_step(page, folder)
    picture(page, "decode-journey", full_page=True)
    _looks_right_everywhere(page, server, folder, picture)


def _opens_a_rejected_step(page: Page, folder: Path) -> None:
    """Move to a threshold and a problem at which something was rejected, and unfold it."""
    from playwright.sync_api import expect

    decode = read_decode(folder)
    rejected = next(one for one in decode.solutions if any(step.discarded is not None for step in one.steps))
    other = next(one.key for one in decode.points if one.key.startswith("threshold") and one.key != rejected.point)
    for point in (other, rejected.point):  # the page may have begun with either
        choose(page, "address-point", _point_words(point))
        expect(card(page, "conclusion")).to_contain_text(f"{_point_words(point)}:")
    choose(page, "address-problem", one_line(rejected.question, 60))  # a right answer is shown first
    unfolding = card(page, "solution").locator("details").first
    unfolding.locator("summary").click()
    expect(unfolding.locator("s")).to_be_visible()


def _point_words(key: str) -> str:
    """Return what the page calls a point."""
    if key.startswith("constant"):
        return f"Constant (control) {key.partition('=')[2]}"
    return key.replace("=", " ").capitalize()


def _looks_right_everywhere(page: Page, server: str, folder: Path, picture: Picture) -> None:
    for width in (1400, 375):
        for mode in MODES:
            show(page, width, 1000, mode)
            page.goto(f"{server}/decode?run={folder.name}")
            fits(page, mode)
            picture(page, f"decode-{width}-{mode}", full_page=True)


def _begun(page: Page, steps: Locator) -> bool:
    """Press the button and wait for the first step: a press while the text is taken over is lost."""
    from playwright.sync_api import TimeoutError as NotInTime

    page.get_by_role("button", name="Decode", exact=True).click()
    with suppress(NotInTime):
        steps.wait_for(timeout=60_000)  # a second press would end the first
    return steps.count() > 0


@pytest.mark.journey
def test_a_typed_problem_is_watched_and_the_threshold_moves_it(
    server: str, page: Page, picture: Picture, runs_dir: Path, roles: dict[str, str]
) -> None:
    from playwright.sync_api import expect

    from dynlora.jobs import quick_launch

    settings = DecodeSettings.of(
        draft=roles["draft"],
        target=roles["target"],
        reward="target-likelihood",
        step_string=" ",
        new_tokens=24,
        limit=1,
    )
    folder = quick_launch.create(settings, runs_dir, "queued")
    page.goto(f"{server}/playground?tab=decode&decode={folder.name}")
    settled(page)
    page.get_by_role("textbox", name="Problem").fill("a3:")
    page.get_by_role("textbox", name="Problem").press("Control+Enter")
    settled(page)
    steps = card(page, "decode-live-steps")
    until(lambda: _begun(page, steps), "the first step")
    expect(steps).to_contain_text(re.compile(r"\d+ of the draft kept"))
    picture(page, "decode-live", full_page=True)
    slider = page.get_by_role("slider", name="Threshold")
    slider.press("Home")
    expect(steps).to_contain_text(re.compile(r"0 discarded, 0 of the target"))
    until(lambda: steps.locator(".dl-step").count() > 0, "a step")
