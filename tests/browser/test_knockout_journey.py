"""An ablation in a browser: watched by two, its process killed in the middle, gone on with, fitting a narrow window."""

from __future__ import annotations

import os
import re
import shutil
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from dynlora.store.measurements import Knockouts
from tests.browser.conftest import MODES, Picture, fits, settled, show
from tests.browser.test_playground_journey import inference_child

if TYPE_CHECKING:
    from playwright.sync_api import Page


@pytest.fixture
def slow_run(trained_run: Path, tiny_data: Path, runs_dir: Path, tmp_path: Path) -> Path:
    """A trained run with so many held-out rows that its ablations take a while."""
    folder, data = runs_dir / trained_run.name, tmp_path / "data"
    shutil.copytree(trained_run, folder, ignore=shutil.ignore_patterns("knockout*.json"))
    shutil.copytree(tiny_data, data)
    head, *lines = (data / "validation.csv").read_text().splitlines()
    (data / "validation.csv").write_text("\n".join([head, *lines * 40]) + "\n")
    config = folder / "config.yaml"
    config.write_text(config.read_text().replace(str(tiny_data), str(data)))
    return folder


@pytest.mark.journey
def test_a_knock_out_outlives_the_process_that_measures_it(
    server: str, page: Page, other_page: Page, slow_run: Path, picture: Picture
) -> None:
    from playwright.sync_api import expect

    for one in (other_page, page):  # what the other one loads once takes longer than the ablation on a busy machine
        one.goto(f"{server}/capacity?run={slow_run.name}&heldout=2048")
        settled(one)
    page.get_by_role("button", name="Measure all modules").click()
    progress = re.compile(r"\d+ of 12 modules measured")
    expect(page.get_by_test_id("stProgress").get_by_text(progress)).to_be_visible()
    other_page.reload()
    expect(other_page.get_by_test_id("stProgress").get_by_text(progress)).to_be_visible()

    os.kill(inference_child().pid, signal.SIGKILL)
    ended = re.compile("The ablation ended early")
    expect(page.get_by_text(ended)).to_be_visible()
    expect(other_page.get_by_text(ended)).to_be_visible()
    settled(page)  # a page that is being drawn loses the click
    page.get_by_role("button", name=re.compile("Measure all modules|Measure again")).click()
    expect(page.get_by_text(re.compile("12 modules, .* help and .* harm"))).to_be_visible()
    knockouts = Knockouts.read(slow_run / "knockout.json")
    assert knockouts is not None
    assert (len(knockouts.alone), knockouts.rows) == (12, 2048)
    other_page.goto(page.url)
    for scheme in MODES:
        show(other_page, 375, 900, scheme)
        expect(other_page.get_by_text(re.compile("12 modules, .* help and .* harm"))).to_be_visible()
        fits(other_page, scheme)
        picture(other_page.locator('[class*="st-key-card-knockout"]'), f"knockout-{scheme}")
