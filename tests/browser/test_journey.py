"""The way through the dashboard in a real browser: launch, watch, stop, resume, see capacity, compare."""

from __future__ import annotations

import os
import re
import shutil
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pytest

from dynlora.config import parse_config
from dynlora.store import queries
from dynlora.store.reader import RunReader
from dynlora.training.run import train
from tests.browser.conftest import MODES, OTHER, Picture, fits, open_run, settled, show
from tests.tiny_lm import lm_values, save_problems, save_tiny_lm
from tests.waiting import until

if TYPE_CHECKING:
    from playwright.sync_api import ConsoleMessage, Page

Looks = tuple[tuple[int, Literal["light", "dark"]], ...]
"""Widths in pixels, and modes, in the order in which a page is shown in them; it is loaded in the first."""

LOOKS = [
    pytest.param(((1280, "light"), (375, "dark")), id="wide-light-narrow-dark"),
    pytest.param(((375, "dark"), (1280, "light")), id="narrow-dark-wide-light", marks=pytest.mark.torture),
    pytest.param(((1280, "dark"), (375, "light")), id="wide-dark-narrow-light", marks=pytest.mark.torture),
    pytest.param(((375, "light"), (1280, "dark")), id="narrow-light-wide-dark", marks=pytest.mark.torture),
]


@pytest.mark.journey
def test_launch_watch_stop_resume_look_compare(server: str, page: Page, picture: Picture, runs_dir: Path) -> None:
    from playwright.sync_api import expect

    run_id = _launch(page, server, runs_dir)
    picture(page, "1-launched", full_page=True)

    open_run(page)
    progress = page.get_by_text(re.compile(r"step \d+ of 40"))
    expect(progress).to_be_visible()
    loads: list[str] = []
    page.on("load", lambda loaded: loads.append(loaded.url))
    expect(page.get_by_text(re.compile(r"step ([1-9]|[123]\d) of 40"))).to_be_visible()
    page.get_by_role("button", name="Stop").click()
    expect(page.get_by_text(re.compile(r"Stopped at step \d+"))).to_be_visible()
    picture(page, "2-stopped", full_page=True)
    stopped_at = queries.run_summary(runs_dir / run_id).step
    assert 1 <= stopped_at < 40

    page.get_by_role("button", name="Resume").click()
    expect(page.get_by_text("· finished").first).to_be_visible()
    assert loads == [], "progress must appear without loading the page again"
    picture(page, "3-finished", full_page=True)
    losses = queries.scalars_frame(runs_dir / run_id, "loss", "train")
    assert losses["step"].tolist() == list(range(1, 41))

    to_capacity = page.get_by_test_id("stMain").get_by_role("link", name="Capacity")
    expect(to_capacity).to_have_count(1)  # streamlit shows what was drawn before until the page is drawn anew
    to_capacity.click()
    expect(page.get_by_role("heading", name="Rank by module over time")).to_be_visible()
    expect(page.locator(".js-plotly-plot .heatmaplayer").first).to_be_attached()
    assert f"run={run_id}" in page.url
    picture(page, "4-capacity", full_page=True)

    page.goto(f"{server}/compare?runs={run_id},{OTHER}&part=parameters")
    for card in ("loss", "metric", "frontier"):
        expect(page.locator(f'[class*="st-key-card-{card}"] .js-plotly-plot')).to_be_visible()
    page.get_by_text("Capacity and settings", exact=True).click()
    expect(page.get_by_role("heading", name="Rank by module")).to_be_visible()
    expect(page.locator('[class*="st-key-card-ranks"] .js-plotly-plot')).to_be_visible()
    picture(page, "5-compare", full_page=True)


def _launch(page: Page, server: str, runs_dir: Path) -> str:
    """Fill the form in, start the run, suspend it after a first step, and return its id.

    Stopping lets it continue; else a page that a busy machine draws late would find it finished.
    """
    from playwright.sync_api import expect

    page.goto(f"{server}/launch")
    expect(page.get_by_role("heading", name="Command line")).to_be_visible()
    settled(page)
    command = page.locator('[class*="st-key-card-command"] code').first
    for label, value, override in (
        ("Steps", "40", "train.steps=40"),
        ("Batch size (examples)", "8", "train.batch_size=8"),
        ("Maximum length (tokens)", "16", "data.max_length=16"),
        ("Maximum held-out examples", "50", "data.max_eval=50"),
    ):
        box = page.get_by_label(label, exact=True)
        box.fill(value)
        box.press("Enter")
        expect(command).to_contain_text(override)
    page.get_by_role("button", name="Start", exact=True).click()
    until(lambda: _steps(runs_dir), "a first step")
    [(run_id, _)] = _steps(runs_dir)
    with RunReader(runs_dir / run_id) as reader:
        os.kill(reader.status().pid or 0, signal.SIGSTOP)
    expect(page.get_by_text(f"Started as {run_id}.")).to_be_visible()
    return run_id


def _steps(runs_dir: Path) -> list[tuple[str, int]]:
    """Return id and step of each run that has taken one, but for the one that is always there."""
    rows = queries.list_runs(runs_dir)[["id", "step"]].to_dict("records")
    return [(str(row["id"]), int(row["step"])) for row in rows if row["id"] != OTHER and row["step"] >= 1]


@pytest.mark.journey
@pytest.mark.parametrize("looks", LOOKS)
def test_every_page_is_a_link_without_error_fits_and_follows_the_mode(
    server: str, page: Page, picture: Picture, looks: Looks
) -> None:
    """Streamlit asked `/run/_stcore/health` and `/run/_stcore/host-config` before it asked at the root."""
    from playwright.sync_api import expect

    wrong: list[str] = []
    page.on("response", lambda answer: wrong.append(f"{answer.status} {answer.url}") if answer.status >= 400 else None)
    page.on("console", lambda message: wrong.append(message.text) if is_trouble(message) else None)
    for place, name in enumerate(("capacity", "run", "inputs", "compare", "runs", "home", "launch", "methods")):
        turned = looks[:: -1 if place % 2 else 1]  # some pages are loaded in one look, some in the other
        show(page, turned[0][0], 1000, turned[0][1])
        page.goto(f"{server}/{'' if name == 'home' else name}?run={OTHER}")
        expect(page.get_by_role("heading", level=1)).to_be_visible()
        expect(page).to_have_title(
            "finished: another run · dynlora" if name == "run" else f"{name.capitalize()} · dynlora"
        )
        if name in ("capacity", "run", "inputs", "compare"):
            expect(page.locator(".js-plotly-plot:visible, [data-testid=stAlert]").first).to_be_visible()
        for width, scheme in turned:
            show(page, width, 1000, scheme)
            fits(page, scheme)
            picture(page, f"{name}-{scheme}-{width}")
        assert wrong == [], name
    show(page)
    page.goto(f"{server}/run?run={OTHER}")
    page.get_by_role("link", name="Methods", exact=True).click()
    page.wait_for_url(f"{server}/methods")
    page.get_by_role("heading", name="Methods", level=1).wait_for()
    page.get_by_test_id("stMain").get_by_role("link", name="Launch").first.click()
    expect(page).to_have_url(re.compile("/launch.*strategy="))
    assert wrong == []


def is_trouble(message: ConsoleMessage) -> bool:
    """Say whether a line of the console is an error that no page should have."""
    return message.type == "error"


@pytest.mark.journey
def test_what_the_model_says_fits_a_telephone(
    server: str, page: Page, picture: Picture, runs_dir: Path, trained_run: Path, tmp_path: Path
) -> None:
    from playwright.sync_api import expect

    folder = runs_dir / trained_run.name
    shutil.copytree(trained_run, folder, ignore=shutil.ignore_patterns("knockout.json"))
    for name in ("model", "data"):
        (tmp_path / name).mkdir()
    values = lm_values(save_tiny_lm(tmp_path / "model"), save_problems(tmp_path / "data"), train__steps=2)
    writer = train(parse_config(values), runs_dir, progress=False).folder.name
    troubles: list[str] = []
    page.on("console", lambda message: troubles.append(message.text) if is_trouble(message) else None)
    page.on("pageerror", lambda error: troubles.append(str(error)))
    of_run = f"run={folder.name}"
    log_odds = page.get_by_title(re.compile("log-odds")).first
    views = (
        ("playground", f"playground?{of_run}&text=the+film+was+great+and+the+plot+{'lovely' * 12}", log_odds),
        ("writer", f"playground?run={writer}&text=a2:", page.locator(".dl-tokens span[title*='p(token)']").first),
        ("inputs", f"inputs?{of_run}&example=2", log_odds),
        ("capacity", f"capacity?{of_run}&section=ablation", page.get_by_role("button", name="Measure all modules")),
        ("tour", "tour", page.locator(".replay svg")),
        ("tour-gates", "tour?stop=gates", page.locator('[class*="st-key-card-tour"] .js-plotly-plot').first),
    )
    for place, (name, address, sign) in enumerate(views):
        turned = MODES[:: -1 if place % 2 else 1]
        show(page, 375, 1000, turned[0])
        page.goto(f"{server}/{address}")
        for scheme in turned:
            show(page, 375, 1000, scheme)
            expect(sign).to_be_visible()
            expect(page.locator(".js-plotly-plot:visible, .replay svg").first).to_be_visible()
            fits(page, scheme)
            assert page.locator("[data-testid=stAlertContentError]").count() == 0, name
            picture(page, f"model-{name}-{scheme}", full_page=True)
    assert troubles == []


@pytest.mark.journey
def test_the_pointer_is_told_the_whole_name(server: str, page: Page) -> None:
    from playwright.sync_api import expect

    page.goto(f"{server}/capacity?run={OTHER}")
    plot = page.locator('[class*="st-key-card-map"] .js-plotly-plot .nsewdrag').first
    expect(plot).to_be_visible()
    box = plot.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] * 0.3, box["y"] + box["height"] * 0.3)
    page.mouse.move(box["x"] + box["width"] * 0.32, box["y"] + box["height"] * 0.32)
    expect(page.locator(".hovertext").first).to_contain_text("bert.encoder.layer")
