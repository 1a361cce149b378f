"""Three runs decode a typed problem together in a browser, with the real inference child behind it."""

from __future__ import annotations

import re
import shutil
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from dynlora.kinds.decode.settings import DecodeSettings
from tests.browser.conftest import Picture, settled
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


def card(page: Page, key: str) -> Locator:
    """Return a card."""
    return page.locator(f".st-key-card-{key}")


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
