"""The replay of a notebook in a browser: it plays in its frame, fits it, and asks nobody for anything."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import dynlora
from tests.browser.conftest import Picture, Window
from tests.viz.runs import make_run
from tests.waiting import until

if TYPE_CHECKING:
    from playwright.sync_api import Frame, Page

SAMPLES = Path(__file__).resolve().parents[2] / "sample_runs"
MOVED, LARGE = "20261205-150635-e9038c42", "20261205-151835-85d82515"
RUN = "20260101-000000-00000007"


def framed(page: Page, html: str, width: int = 860) -> Frame:
    """Show a cell's output as a notebook does, and return the frame in it."""
    page.set_content(f"<div style='width: {width}px'>{html}</div>")
    page.frame_locator("iframe").locator(".replay rect.cell").first.wait_for(state="attached")
    return page.frames[1]


def test_the_replay_plays_without_a_network(window: Window) -> None:
    from playwright.sync_api import expect

    page = window(offline=True).new_page()
    frame = framed(page, dynlora.open_run(SAMPLES / MOVED).plot.replay()._repr_html_())
    player = frame.locator(".replay")
    expect(player).to_have_attribute("data-step", "300")
    frame.get_by_role("button", name="Play training").click()
    until(lambda: 0 < int(player.get_attribute("data-step") or 0) < 300, "a step on the way")
    frame.get_by_role("button", name="Pause").click()


@pytest.mark.parametrize("mode", ["light", "dark"])
def test_the_replay_has_the_colours_of_its_theme(page: Page, mode: str, picture: Picture) -> None:
    frame = framed(page, dynlora.open_run(SAMPLES / MOVED).plot(theme=mode).replay()._repr_html_())
    ground = frame.evaluate("getComputedStyle(document.body).backgroundColor")
    assert ground == {"light": "rgb(255, 255, 255)", "dark": "rgb(26, 30, 37)"}[mode]
    picture(page, f"notebook-replay-{mode}")


@pytest.mark.parametrize(
    ("run", "width"),
    [
        (LARGE, 860),
        (MOVED, 360),
        *(pytest.param(*rest, marks=pytest.mark.torture) for rest in ((MOVED, 860), (LARGE, 360))),
    ],
)
def test_the_replay_fits_its_frame(page: Page, run: str, width: int) -> None:
    frame = framed(page, dynlora.open_run(SAMPLES / run).plot.replay()._repr_html_(), width)
    used = frame.locator(".replay").evaluate("element => element.getBoundingClientRect().bottom")
    high, there = frame.evaluate("[document.documentElement.scrollHeight, innerHeight]")
    assert high <= there
    assert there - used < 45


def test_a_text_of_a_run_runs_nothing(page: Page, runs_dir: Path) -> None:
    text = "</script><script>document.title = 'run'</script><img src=x onerror=\"document.title = 'run'\">"
    run = dynlora.open_run(make_run(runs_dir, run_id=RUN, text=text))
    frame = framed(page, run._repr_html_() + run.plot.replay()._repr_html_())
    assert frame.title() == f"Replay of {RUN}"
    assert page.title() != "run"
    assert page.locator("img, script").count() == frame.locator("img").count() == 0


def test_the_frame_cannot_reach_the_notebook(page: Page) -> None:
    frame = framed(page, dynlora.open_run(SAMPLES / MOVED).plot.replay()._repr_html_())
    assert frame.evaluate("origin") == "null"
    assert frame.evaluate("() => { try { return parent.document.title } catch (error) { return error.name } }") == (
        "SecurityError"
    )
