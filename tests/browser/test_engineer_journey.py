"""From an own CSV with odd rows to a verdict, all in the browser: repair, experiment, comparison."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from dynlora.store import queries
from tests.browser.conftest import Picture, fill, repair_each, settled
from tests.data_files.files import csv_text
from tests.data_files.odd import WITH_ODD_ROWS
from tests.waiting import until

if TYPE_CHECKING:
    from playwright.sync_api import Page

FIELDS = {
    "Maximum length (tokens)": "16",
    "Ranks": "2",
    "Seeds": "0-1",
    "Steps": "12",
    "Batch size (examples)": "8",
}


@pytest.mark.journey
def test_an_engineer_goes_from_a_csv_with_odd_rows_to_a_verdict(
    server: str, page: Page, picture: Picture, runs_dir: Path, tmp_path: Path, tiny_bert: Path
) -> None:
    from playwright.sync_api import expect

    table = tmp_path / "reviews.csv"
    table.write_text(csv_text(WITH_ODD_ROWS, ";"), "utf-8")
    page.goto(f"{server}/launch?mode=experiment&data=upload&methods=lora,dynamic")
    page.get_by_test_id("stFileUploaderDropzoneInput").set_input_files(table)
    expect(page.get_by_text("training refuses the file until it is repaired").first).to_be_visible()
    settled(page)
    picture(page, "engineer-faults", full_page=True)
    repair_each(page)
    expect(page.get_by_text("no faults in").first).to_be_visible()
    document = page.locator('[class*="st-key-card-command"] code').last
    expect(document).to_contain_text("drop_empty_texts")
    fill(page, {"Model": str(tiny_bert), **FIELDS})

    page.get_by_role("button", name="Start 4 runs").click()
    expect(page).to_have_url(re.compile(r"/compare\?runs="))
    ids = re.findall(r"\d{8}-\d{6}-[0-9a-f]{8}", page.url)
    assert len(ids) == 4
    until(lambda: _finished(runs_dir, ids), "the end of four runs")
    headline = page.locator('[class*="st-key-card-verdict"] strong').first
    expect(headline).to_contain_text("2 common seeds, too few to decide")
    expect(page.locator('[class*="st-key-card-progress"]')).to_have_count(0)
    settled(page)
    picture(page, "engineer-verdict", full_page=True)


def _finished(runs_dir: Path, ids: list[str]) -> bool:
    states = {queries.run_summary(runs_dir / run).status for run in ids}
    assert not states & {"failed", "interrupted"}, states
    return states == {"finished"}
