"""Upload a table in a real browser, see what a run on it costs, and train on it to the end."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from dynlora.store import queries
from tests.browser.conftest import MODES, OTHER, Picture, Window, fits, open_run, repair_each, show
from tests.data_files.files import csv_text
from tests.data_files.odd import CLEAN, ODD
from tests.tiny import tiny_rows, write_csv

if TYPE_CHECKING:
    from playwright.sync_api import Page


@pytest.mark.journey
def test_upload_check_train(
    server: str, page: Page, window: Window, picture: Picture, runs_dir: Path, tmp_path: Path, tiny_bert: Path
) -> None:
    from playwright.sync_api import expect

    rows = [{"review": row["text"], "verdict": row["label"], "source": row["domain"]} for row in tiny_rows(60)]
    table = write_csv(tmp_path / "my reviews.csv", rows)

    page.goto(f"{server}/launch?data=upload")
    expect(page.get_by_text("Upload a file first.").first).to_be_visible()
    expect(page.get_by_role("button", name="Start", exact=True)).to_be_disabled()
    page.get_by_test_id("stFileUploaderDropzoneInput").set_input_files(table)
    expect(page.get_by_text("In its 60 rows the label is")).to_be_visible()
    command = page.locator('[class*="st-key-card-command"] code').first
    expect(command).to_contain_text("data.text=review")
    _fill(page, {"Model": str(tiny_bert), "Steps": "6", "Batch size (examples)": "8", "Maximum length (tokens)": "16"})
    expect(command).to_contain_text("max_length=16")

    page.get_by_role("button", name="Check", exact=True).click()
    expect(page.get_by_role("heading", name="Tokenized examples")).to_be_visible()
    expect(page.locator(".js-plotly-plot:visible")).to_have_count(2)
    picture(page, "launch-checked", full_page=True)

    page.get_by_role("button", name="Start", exact=True).dblclick()
    started = page.get_by_text(re.compile(r"Started as \S+\."))
    expect(started).to_be_visible()
    open_run(page)
    expect(page.get_by_text("· finished").first).to_be_visible()
    picture(page, "launch-finished", full_page=True)

    runs = queries.list_runs(runs_dir)
    [run_id] = [run for run in runs["id"] if run != OTHER]  # one run, although the button was pressed twice
    summary = queries.run_summary(runs_dir / run_id)
    kept = Path(summary["config"]["data"]["path"])
    assert summary["status"] == "finished"
    assert kept.relative_to(runs_dir.resolve()).parts[0] == ".uploads"
    assert kept.read_bytes() == table.read_bytes()

    other = window().new_page()  # a link in another browser restores the view
    other.goto(f"{server}/launch?data=upload&upload={kept.parent.name}")
    expect(other.get_by_text("In its 60 rows the label is")).to_be_visible()
    other.goto(f"{server}/launch?from={run_id}&twin=uniform")
    again = other.locator('[class*="st-key-card-command"] code').first
    expect(again).to_contain_text("strategy.name=lora")
    expect(again).to_contain_text(str(kept))
    other.context.close()


def _fill(page: Page, values: dict[str, str]) -> None:
    """Enter values into the form's fields, by their labels, each as soon as the one before has arrived."""
    from playwright.sync_api import expect

    command = page.locator('[class*="st-key-card-command"] code').first
    for label, value in values.items():
        box = page.get_by_label(label, exact=True)
        box.fill(value)
        box.press("Enter")
        expect(command).to_contain_text(value)


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
