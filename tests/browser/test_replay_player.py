"""The player of the model picture alone, without a server: what happens between two of its frames."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import dynlora.viz.ui.replay as replay_package
from dynlora.viz.kit import theme

if TYPE_CHECKING:
    from playwright.sync_api import Page

PLAYER = Path(replay_package.__file__).with_name("replay.js").read_text("utf-8")
COLOURS = {"mode": "light", "scale": list(theme.LIGHT.sequential)} | {
    name: getattr(theme.LIGHT, name) for name in ("sunken", "hairline", "muted", "panel")
}
DATA = {
    "version": "1",
    "steps": [0, 10],
    "frame": 1,
    "rank": [[4.0], [2.0]],
    "shade": [[None], [0.5]],
    "limit": 5,
    "blocks": [{"label": "layer 0", "count": 1}],
    "modules": [{"short": "query 0", "name": "q", "marked": False}],
    "uniform": 4,
    "ticks": [0, 5],
    "about": "A model.",
    "colours": COLOURS,
    "linked": False,
    "plays": False,
}


def drawn(page: Page, data: dict) -> list[str]:
    """Draw the picture on an empty page, and return the errors that the page meets from then on."""
    troubles: list[str] = []
    page.on("pageerror", lambda error: troubles.append(str(error)))
    page.set_content("<div id='place' style='width: 400px'></div>")
    script = PLAYER.replace("export default function", "window.draw = function", 1)
    page.add_script_tag(content=f"(() => {{ {script} }})()")
    page.evaluate(
        "data => window.draw({data, parentElement: document.getElementById('place'), setTriggerValue: () => {}})", data
    )
    return troubles


def test_a_page_that_changes_its_width_before_the_first_frame_draws_a_frame(page: Page) -> None:
    troubles = drawn(page, DATA)
    page.evaluate(
        """async () => {
          document.querySelector('.controls button').click();
          document.getElementById('place').style.width = '300px';
          await new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)));
        }"""
    )
    assert troubles == []
    assert page.locator(".replay").get_attribute("data-step") == "0"


def test_a_picture_of_one_step_plays_to_its_end(page: Page) -> None:
    one = {**DATA, "steps": [7], "frame": 0, "rank": [[4.0]], "shade": [[None]]}
    troubles = drawn(page, json.loads(json.dumps(one)))
    page.get_by_role("button", name="Play training").click()
    page.get_by_role("button", name="Pause").click()
    assert troubles == []
    assert page.locator(".replay").get_attribute("data-step") == "7"
