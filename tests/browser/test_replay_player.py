"""The player of the model picture alone, without a server: what happens between two of its frames."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import dynlora.viz.ui.replay as replay_package
from dynlora.viz.kit import theme

if TYPE_CHECKING:
    from playwright.sync_api import Page

PLAYER = Path(replay_package.__file__).with_name("replay.js").read_text("utf-8")
COLOURS = {
    "mode": "light",
    "rank": list(theme.LIGHT.sequential),
    "importance": list(theme.LIGHT.score),
    "change": list(theme.LIGHT.diverging),
    "mark": theme.LIGHT.second,
} | {name: getattr(theme.LIGHT, name) for name in ("sunken", "hairline", "text", "muted", "panel")}
DATA = {
    "version": "1",
    "steps": [0, 10],
    "frame": 1,
    "rank": [[4.0], [2.0]],
    "share": [[None], [50.0]],
    "ends": {"rank": 8, "importance": 100, "change": 4},
    "quantity": "rank",
    "kinds": ["query"],
    "layers": ["0"],
    "modules": [{"short": "query 0", "name": "q", "marked": False, "row": 0, "column": 0}],
    "uniform": 4,
    "about": "A model.",
    "colours": COLOURS,
    "linked": False,
    "plays": False,
}


def drawn(page: Page, data: dict, width: int = 400) -> list[str]:
    """Draw the picture on an empty page, and return the errors that the page meets from then on."""
    troubles: list[str] = []
    page.on("pageerror", lambda error: troubles.append(str(error)))
    page.set_content(f"<div id='place' style='width: {width}px'></div>")
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
    one = {**DATA, "steps": [7], "frame": 0, "rank": [[4.0]], "share": [[None]]}
    troubles = drawn(page, json.loads(json.dumps(one)))
    page.get_by_role("button", name="Play training").click()
    page.get_by_role("button", name="Pause").click()
    assert troubles == []
    assert page.locator(".replay").get_attribute("data-step") == "7"


SPEECH = {
    "steps": [0, 10, 20],
    "frame": 2,
    "rank": [[4, 4], [4, 4], [1, 7]],
    "share": [[20.0, 80.0]] * 3,
    "kinds": ["query", "value"],
    "modules": [
        {"short": f"{name} 0", "name": name, "marked": False, "position": row, "row": row, "column": 0}
        for row, name in enumerate(("query", "value"))
    ],
    "plays": True,
    "cues": [
        {"frame": 0, "rows": [0], "words": ["A cell is one module."]},
        {"frame": 0, "rows": [1], "words": ["All cells share one budget."]},
        {"frame": 2, "rows": [0, 1], "words": ["query 0 gives 3 ranks", "value 0 gets 3 ranks"]},
    ],
    "due": ["next reallocation: step 20", "next reallocation: step 20", "no reallocation left"],
}


def test_a_picture_speaks_each_sentence_below_its_marked_cells_while_it_plays(page: Page) -> None:
    page.emulate_media(reduced_motion="no-preference")
    troubles = drawn(page, {**DATA, **SPEECH})
    sentence, marked = page.locator(".speech p"), page.locator(f"rect[visibility=visible][stroke='{COLOURS['mark']}']")
    sentence.filter(has_text="A cell is one module.").wait_for()
    assert "next reallocation: step 20" in page.locator("output").inner_text()
    sentence.filter(has_text="All cells share one budget.").wait_for()
    assert (sentence.count(), marked.count()) == (1, 1)
    sentence.filter(has_text="query 0 gives 3 ranks, value 0 gets 3 ranks.").wait_for()
    assert marked.count() == 2
    assert "no reallocation left" in page.locator("output").inner_text()
    page.get_by_role("button", name="Pause").click()
    assert sentence.count() == 1, "what was said last stays"
    assert troubles == []


def test_a_cell_has_its_rank_its_share_of_the_importance_or_its_change_of_rank(page: Page) -> None:
    page.emulate_media(reduced_motion="reduce")
    data = {**DATA, **SPEECH, "share": [[None, None], [20.0, 80.0], [20.0, 80.0]]}
    assert drawn(page, data) == []
    cells, numbers = page.locator("rect.cell"), page.locator("rect.cell ~ text[text-anchor=middle]")

    def read() -> tuple[list[str], list[str | None]]:
        words = [text for text in numbers.all_text_contents() if text]
        return words, [cell.get_attribute("fill") for cell in cells.all()]

    looks = {}
    for name, words in (("Rank", ["1", "7"]), ("Importance", ["20", "80"]), ("Change", ["−3", "+3"])):
        page.get_by_role("button", name=name).click()
        numbers_of, looks[name] = read()
        assert numbers_of[:2] == words
    assert len({tuple(fills) for fills in looks.values()}) == 3, "another hue for another quantity"
    legend = page.locator(".replay svg g")
    assert "+4" in (legend.text_content() or "")
    page.get_by_role("button", name="Rank").click()
    assert (legend.text_content() or "").endswith("4 uniform")


def test_ranks_above_the_scale_are_named_in_the_legend(page: Page) -> None:
    assert drawn(page, {**DATA, "rank": [[16.0], [2.0]]}) == []
    assert "8 or more" in (page.locator(".replay svg g").text_content() or "")


@pytest.mark.parametrize(("layers", "kinds"), [(1, 1), (6, 6), (30, 7), (80, 7), (3, 40)])
@pytest.mark.parametrize("width", [290, 900])
def test_all_cells_of_any_model_lie_inside_the_picture(layers: int, kinds: int, width: int, page: Page) -> None:
    places = [(row, column) for row in range(kinds) for column in range(layers)]
    modules = [{**DATA["modules"][0], "row": row, "column": column} for row, column in places]
    names = {"kinds": [f"kind {row}" for row in range(kinds)], "layers": [str(column) for column in range(layers)]}
    n = len(places)
    data = {**DATA, **names, "modules": modules, "rank": [[4] * n] * 2, "share": [[None] * n] * 2}
    assert drawn(page, data, width) == []
    whole = page.locator(".replay svg").bounding_box()
    assert whole is not None
    boxes = page.locator("rect.cell").evaluate_all(
        "cells => cells.map(cell => cell.getBoundingClientRect()).map(({left, right, top, bottom}) =>"
        " [left, right, top, bottom])"
    )
    assert len(boxes) == n
    assert min(box[0] for box in boxes) >= whole["x"]
    assert max(box[1] for box in boxes) <= whole["x"] + whole["width"]
    assert max(box[3] for box in boxes) <= whole["y"] + whole["height"]


def test_whoever_asked_for_less_motion_reads_all_sentences_and_nothing_plays(page: Page) -> None:
    page.emulate_media(reduced_motion="reduce")
    drawn(page, {**DATA, **SPEECH})
    assert page.get_by_role("button", name="Play training").count() == 1
    assert page.locator(".sentences li").all_inner_texts() == [
        "A cell is one module.",
        "All cells share one budget.",
        "query 0 gives 3 ranks, value 0 gets 3 ranks.",
    ]


def test_a_module_that_needs_rank_has_an_outline_around_its_cell_and_the_picture_says_what_it_means(page: Page) -> None:
    colours = {**COLOURS, "needed": theme.LIGHT.needed}
    needed = {**DATA, "modules": [{**DATA["modules"][0], "needed": True}], "outlined": "Needs rank", "colours": colours}
    assert drawn(page, needed) == []
    outlines = page.locator(f".replay rect[stroke='{theme.LIGHT.needed}']")
    assert outlines.count() == 2, "the cell, and the key to it"
    assert "Needs rank" in (page.locator(".replay svg").text_content() or "")
