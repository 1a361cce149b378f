"""The launch form in a real browser: it fits, and a table with odd rows is repaired in it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.browser.conftest import MODES, Picture, Window, fits, repair_each, show
from tests.data_files.files import csv_text
from tests.data_files.odd import CLEAN, ODD

if TYPE_CHECKING:
    from playwright.sync_api import Page


@pytest.mark.journey
def test_the_form_and_the_methods_fit(server: str, page: Page, picture: Picture) -> None:
    from playwright.sync_api import expect

    looks = list(zip((1280, 375), MODES, strict=True))
    for name, heading, turned in (("launch", "Command line", looks), ("methods", "LoRA", looks[::-1])):
        show(page, turned[0][0], 1000, turned[0][1])
        page.goto(f"{server}/{name}")
        expect(page.get_by_role("heading", name=heading, exact=True)).to_be_visible()
        for width, scheme in turned:
            show(page, width, 1000, scheme)
            fits(page, scheme)
            picture(page, f"{name}-{scheme}-{width}")
    page.get_by_test_id("stMain").get_by_role("link", name="Launch").first.click()
    expect(page).to_have_url(re.compile("/launch.*strategy="))


@pytest.mark.journey
def test_a_csv_with_ten_odd_rows_is_repaired_in_the_page(
    server: str, page: Page, window: Window, picture: Picture, tmp_path: Path
) -> None:
    from playwright.sync_api import expect

    table = tmp_path / "odd rows.csv"
    table.write_bytes(csv_text([*CLEAN, *ODD], ";").encode("utf-16"))
    page.goto(f"{server}/launch?data=upload")
    page.get_by_test_id("stFileUploaderDropzoneInput").set_input_files(table)
    card = page.locator('[class*="st-key-card-data-check"]').first
    expect(card.get_by_text("training refuses the file until it is repaired")).to_be_visible()
    expect(card.get_by_text("Read odd-rows.csv: UTF-16, semicolon between the cells.")).to_be_visible()
    card.get_by_role("button", name="Merge 2 spellings").click()
    command = page.locator('[class*="st-key-card-command"] code').first
    expect(command).to_contain_text("merge: {Good: good")
    expect(card.get_by_text("Merged Good into good")).to_be_visible()
    picture(card, "launch-data-check")
    repair_each(page)
    expect(card.get_by_text("no faults in")).to_be_visible()
    expect(command).to_contain_text("drop_conflicts")
    page.reload()  # the address holds file and repairs
    expect(card.get_by_text("no faults in")).to_be_visible()
    for mode in MODES:
        narrow = window(width=375, height=800, color_scheme=mode).new_page()
        narrow.goto(page.url)
        expect(narrow.get_by_text("no faults in")).to_be_visible()
        fits(narrow, mode)
        narrow.context.close()
