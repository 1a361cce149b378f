"""How many clicks the usual ways through the dashboard take, counted in the browser as it takes them."""

from __future__ import annotations

import re
import shutil
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from dynlora.store import queries
from tests.browser.conftest import OTHER, Window, fill, settled
from tests.tiny import tiny_rows, write_csv

if TYPE_CHECKING:
    from playwright.sync_api import Page

COUNT = """document.addEventListener('click', event => {
  if (event.isTrusted) sessionStorage.setItem('clicks', 1 + Number(sessionStorage.getItem('clicks') || 0));
}, true);"""
"""Counts what a person does; a click that a script makes is not trusted."""

SMALL = {"Steps": "6", "Batch size (examples)": "8", "Maximum length (tokens)": "16"}


@pytest.mark.journey
def test_the_usual_ways_take_few_clicks(
    server: str, window: Window, trained_run: Path, runs_dir: Path, tmp_path: Path, tiny_bert: Path
) -> None:
    run = trained_run.name
    shutil.copytree(trained_run, runs_dir / run)
    shutil.rmtree(runs_dir / OTHER)  # it is newer
    page = window().new_page()
    page.add_init_script(COUNT)
    taken = {
        "open a run": _opens_a_run(page, server, run),
        "see where the capacity of the newest run went": _sees_capacity(page, server, run),
        "download the adapter from Run": _downloads(page, server, run, tmp_path),
        "copy the ranks from Run": _copies(page, server, run),
        "see how small the adapter may be": _shrinks(page, server, run),
        "ablate the modules of a run": _ablates(page, server, run),
        "train the twin of a run": _trains_a_twin(page, server, runs_dir, run),
        "launch the demo": _launches_demo(page, server, tiny_bert),
        "launch on an own file, once it is chosen": _launches(page, server, tmp_path, tiny_bert),
        "compare methods at one budget over three seeds": _compares(page, server, runs_dir, tiny_bert),
    }
    allowed = dict(zip(taken, (1, 1, 1, 1, 1, 1, 1, 2, 3, 4), strict=True))
    assert {way: clicks for way, clicks in taken.items() if clicks > allowed[way]} == {}, taken
    assert min(taken.values()) > 0, "clicks are counted"


def _begin(page: Page, address: str) -> None:
    page.goto(address)
    page.get_by_role("heading", level=1).wait_for()
    settled(page)
    _forget(page)


def _forget(page: Page) -> None:
    page.evaluate("sessionStorage.removeItem('clicks')")


def _clicks(page: Page) -> int:
    return int(page.evaluate("Number(sessionStorage.getItem('clicks') || 0)"))


def _opens_a_run(page: Page, server: str, run: str) -> int:
    _begin(page, server)
    page.locator(f".st-key-run-line-{run}").get_by_role("link").click()
    page.wait_for_url(f"{server}/run?run={run}")
    return _clicks(page)


def _sees_capacity(page: Page, server: str, run: str) -> int:
    _begin(page, server)
    page.get_by_role("link", name="See rank move").click()
    page.get_by_role("heading", name="Rank by module over time").wait_for()
    assert f"run={run}" in page.url
    return _clicks(page)


def _downloads(page: Page, server: str, run: str, tmp_path: Path) -> int:
    _begin(page, f"{server}/run?run={run}")
    with page.expect_download() as started:
        page.get_by_role("button", name="Adapter").click()
    started.value.save_as(tmp_path / "adapter.zip")
    with zipfile.ZipFile(tmp_path / "adapter.zip") as archive:
        assert any(name.endswith("adapter_model.safetensors") for name in archive.namelist())
    return _clicks(page)


def _copies(page: Page, server: str, run: str) -> int:
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    _begin(page, f"{server}/run?run={run}")
    page.locator(".st-key-copy-code button").click()
    assert "LoraConfig(" in page.evaluate("navigator.clipboard.readText()")
    return _clicks(page)


def _shrinks(page: Page, server: str, run: str) -> int:
    _begin(page, f"{server}/run?run={run}")
    page.get_by_role("link", name="Shrink", exact=True).first.click()
    page.wait_for_url(re.compile("/shrink"))
    page.get_by_role("button", name="Measure the sizes").wait_for()
    return _clicks(page)


def _ablates(page: Page, server: str, run: str) -> int:
    _begin(page, f"{server}/capacity?run={run}&section=ablation")
    page.get_by_role("button", name="Measure all modules").click()
    page.get_by_text(re.compile("12 modules, .* help and .* harm")).wait_for()
    return _clicks(page)


def _trains_a_twin(page: Page, server: str, runs_dir: Path, run: str) -> int:
    _begin(page, f"{server}/run?run={run}")
    page.get_by_role("button", name="Train its plain LoRA baseline").click()
    page.wait_for_url(re.compile(rf"/compare\?runs={run}"))
    twin, original = (queries.run_summary(runs_dir / one) for one in (re.findall(RUN_ID, page.url)[-1], run))
    assert (twin.strategy, original.strategy) == ("lora", "dynamic")
    assert (twin.seed, twin.config["train"]) == (original.seed, original.config["train"])
    return _clicks(page)


RUN_ID = r"\d{8}-\d{6}-[0-9a-f]{8}"


def _launches_demo(page: Page, server: str, tiny_bert: Path) -> int:
    """Begin on the first page, keep the data that the form begins with; what makes the run small is typed."""
    _begin(page, server)
    page.get_by_role("link", name="Launch", exact=True).click()
    page.get_by_role("button", name="Start", exact=True).wait_for()
    settled(page)
    fill(page, {"Model": str(tiny_bert), **SMALL})
    page.get_by_role("button", name="Start", exact=True).click()
    page.get_by_text(re.compile(r"Started as \S+")).wait_for()
    return _clicks(page)


def _launches(page: Page, server: str, tmp_path: Path, tiny_bert: Path) -> int:
    """Choose the file first, as a person does; what makes the run small is typed and not clicked."""
    rows = [{"review": row["text"], "verdict": row["label"]} for row in tiny_rows(60)]
    _begin(page, f"{server}/launch?data=upload")
    page.get_by_test_id("stFileUploaderDropzoneInput").set_input_files(write_csv(tmp_path / "reviews.csv", rows))
    page.get_by_text("In its 60 rows the label is").wait_for()
    fill(page, {"Model": str(tiny_bert), **SMALL})
    page.locator('[class*="st-key-card-command"] code').filter(has_text="max_length=16").first.wait_for()
    settled(page)
    page.get_by_role("button", name="Start", exact=True).click()
    page.get_by_text(re.compile(r"Started as \S+")).wait_for()
    return _clicks(page)


def _compares(page: Page, server: str, runs_dir: Path, tiny_bert: Path) -> int:
    """Begin on the first page; what makes the runs small is typed and not clicked."""
    _begin(page, server)
    page.get_by_role("link", name="Launch", exact=True).click()
    page.get_by_text("Experiment", exact=True).click()
    page.get_by_role("heading", name="Methods, ranks and seeds").wait_for()
    settled(page)
    fill(page, {"Model": str(tiny_bert), **SMALL, "Maximum training examples": "64"})
    page.get_by_role("button", name=re.compile(r"Start \d+ runs")).click()
    page.wait_for_url(re.compile(r"/compare\?runs="))
    summaries = [queries.run_summary(runs_dir / one) for one in re.findall(RUN_ID, page.url)]
    assert len({one.strategy for one in summaries}) > 1
    assert sorted(one.seed or 0 for one in summaries) == sorted([0, 1, 2] * (len(summaries) // 3))
    assert len({one.config["adapter"]["rank"] for one in summaries}) == 1, "one budget"
    return _clicks(page)
