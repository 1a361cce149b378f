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
COLOURS["mark"] = theme.LIGHT.second
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


SPEECH = {
    "steps": [0, 10, 20],
    "frame": 2,
    "rank": [[4, 4], [4, 4], [1, 7]],
    "shade": [[0.2, 1.0]] * 3,
    "limit": 8,
    "blocks": [{"label": "layer 0", "count": 2}],
    "modules": [{"short": f"{name} 0", "name": name, "marked": False, "position": 0} for name in ("query", "value")],
    "plays": True,
    "cues": [
        {"frame": 0, "rows": [0], "words": ["A bar is one module."]},
        {"frame": 0, "rows": [1], "words": ["Colour is importance."]},
        {"frame": 2, "rows": [0, 1], "words": ["query 0 gives 3 ranks", "value 0 gets 3 ranks"]},
    ],
    "due": ["next reallocation: step 20", "next reallocation: step 20", "no reallocation left"],
}


def test_a_picture_speaks_each_sentence_on_its_bars_while_it_plays(page: Page) -> None:
    page.emulate_media(reduced_motion="no-preference")
    troubles = drawn(page, {**DATA, **SPEECH})
    bubbles = page.locator(".bubbles p")
    bubbles.filter(has_text="A bar is one module.").wait_for()
    assert "next reallocation: step 20" in page.locator("output").inner_text()
    bubbles.filter(has_text="Colour is importance.").wait_for()
    assert bubbles.count() == 1
    bubbles.filter(has_text="query 0 gives 3 ranks").wait_for()
    assert bubbles.all_inner_texts() == ["query 0 gives 3 ranks", "value 0 gets 3 ranks"]
    assert "no reallocation left" in page.locator("output").inner_text()
    giver, taker = (dot.bounding_box() for dot in page.locator("circle[visibility=visible]").all())
    assert giver is not None
    assert taker is not None
    assert taker["x"] > giver["x"], "each dot is at the end of its bar"
    page.get_by_role("button", name="Pause").click()
    assert bubbles.count() == 2, "what was said last stays"
    assert troubles == []


def test_the_sentences_of_two_bars_do_not_cover_each_other_and_stay_inside(page: Page) -> None:
    page.emulate_media(reduced_motion="reduce")
    drawn(page, {**DATA, **SPEECH})
    for width in (290, 400, 900):
        page.evaluate("width => { document.getElementById('place').style.width = `${width}px`; }", width)
        page.wait_for_function("width => document.querySelector('svg').viewBox.baseVal.width === width", arg=width)
        stage = page.locator(".stage").bounding_box()
        first, second = (one.bounding_box() for one in page.locator(".bubbles p").all())
        assert stage is not None
        assert first is not None
        assert second is not None
        for box in (first, second):
            assert box["x"] >= stage["x"]
            assert box["x"] + box["width"] <= stage["x"] + stage["width"] + 1
        assert first["y"] + first["height"] <= second["y"]


def test_whoever_asked_for_less_motion_reads_all_sentences_and_nothing_plays(page: Page) -> None:
    page.emulate_media(reduced_motion="reduce")
    drawn(page, {**DATA, **SPEECH})
    assert page.get_by_role("button", name="Play training").count() == 1
    assert page.locator(".sentences li").all_inner_texts() == [
        "A bar is one module.",
        "Colour is importance.",
        "query 0 gives 3 ranks, value 0 gets 3 ranks.",
    ]


def test_a_module_that_needs_rank_has_an_outline_around_its_row_and_the_picture_says_what_it_means(page: Page) -> None:
    colours = {**COLOURS, "needed": theme.LIGHT.needed}
    needed = {**DATA, "modules": [{**DATA["modules"][0], "needed": True}], "outlined": "Needs rank", "colours": colours}
    assert drawn(page, needed) == []
    outlines = page.locator(f".replay rect[stroke='{theme.LIGHT.needed}']")
    assert outlines.count() == 2, "the row, and the key to it"
    assert "Needs rank" in (page.locator(".replay svg").text_content() or "")
