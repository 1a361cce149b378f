"""Upload a table, see what a run costs and which ranks and rate to use, and train with them, in a real browser."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from dynlora.config import parse_config
from dynlora.store import queries
from tests.browser.conftest import OTHER, Picture, fits, settled
from tests.tiny import tiny_rows, write_csv
from tests.waiting import until

if TYPE_CHECKING:
    from playwright.sync_api import Page

SMALL = {"Steps": "6", "Batch size (examples)": "8", "Maximum length (tokens)": "16"}


@pytest.mark.journey
def test_a_table_is_uploaded_checked_and_trained_on_with_suggested_ranks(
    server: str, page: Page, picture: Picture, runs_dir: Path, tmp_path: Path, tiny_bert: Path
) -> None:
    from playwright.sync_api import expect

    rows = [{"review": row["text"], "verdict": row["label"]} for row in tiny_rows(60)]
    table = write_csv(tmp_path / "my reviews.csv", rows)
    page.goto(f"{server}/launch?data=upload")
    expect(page.get_by_role("button", name="Start", exact=True)).to_be_disabled()
    page.get_by_test_id("stFileUploaderDropzoneInput").set_input_files(table)
    expect(page.get_by_text("In its 60 rows the label is")).to_be_visible()
    command = page.locator('[class*="st-key-card-command"] code').first
    for label, value in {"Model": str(tiny_bert), **SMALL}.items():
        box = page.get_by_label(label, exact=True)
        box.fill(value)
        box.press("Enter")
        expect(command).to_contain_text(value)
    settled(page)

    page.get_by_role("button", name="Check", exact=True).click()
    expect(page.get_by_role("heading", name="Tokenized examples")).to_be_visible()
    expect(page.locator(".js-plotly-plot:visible")).to_have_count(2)
    picture(page, "launch-checked", full_page=True)
    page.get_by_role("button", name="Suggest ranks").click()
    card = page.locator('[class*="st-key-card-advice"]')
    expect(card.get_by_role("heading", name="Suggested ranks")).to_be_visible()
    expect(card.locator(".js-plotly-plot .heatmaplayer")).to_have_count(1)
    picture(page, "launch-advice", full_page=True)
    page.set_viewport_size({"width": 375, "height": 800})
    fits(page, "light")
    page.set_viewport_size({"width": 1400, "height": 900})

    card.get_by_role("button", name="Train with these ranks").click()
    card.get_by_role("link", name="Open the run that was queued").click()
    expect(page.get_by_text("· finished").first).to_be_visible()
    [run_id] = [run for run in queries.list_runs(runs_dir)["id"] if run != OTHER]
    until(lambda: queries.run_summary(runs_dir / run_id)["status"] == "finished", "the run")
    [answer] = (runs_dir / ".advice").glob("*.json")
    summary = queries.run_summary(runs_dir / run_id)
    kept = Path(summary["config"]["data"]["path"])
    assert kept.relative_to(runs_dir.resolve()).parts[0] == ".uploads"
    assert kept.read_bytes() == table.read_bytes()
    assert dict(summary["ranks"]) == json.loads(answer.read_text("utf-8"))["ranks"]


@pytest.mark.journey
def test_a_suggested_rate_is_put_into_the_form_and_trains_better_than_the_default(
    server: str, page: Page, picture: Picture, runs_dir: Path, tmp_path: Path, tiny_bert: Path
) -> None:
    """On an own table, with the seed of the form: the same run at the default rate and at the suggested one."""
    from playwright.sync_api import expect

    page.goto(f"{server}/launch?data=upload")
    rows = {row["text"]: {"review": row["text"], "verdict": row["label"]} for row in tiny_rows(300)}
    table = write_csv(tmp_path / "reviews.csv", list(rows.values()))
    page.get_by_test_id("stFileUploaderDropzoneInput").set_input_files(table)
    expect(page.get_by_text(f"no faults in {len(rows)} rows")).to_be_visible()
    command = page.locator('[class*="st-key-card-command"] code').first
    for label, value in {"Model": str(tiny_bert), **SMALL, "Steps": "30"}.items():
        box = page.get_by_label(label, exact=True)
        box.fill(value)
        box.press("Enter")
        expect(command).to_contain_text(value)
    settled(page)
    default = _trained(page, runs_dir, {OTHER})

    page.get_by_role("button", name="Suggest rate").click()
    card = page.locator('[class*="st-key-card-advice-rate"]').first
    expect(card.get_by_role("heading", name="Suggested learning rate")).to_be_visible()
    expect(card.locator(".js-plotly-plot:visible")).to_have_count(1)
    picture(page, "launch-rate", full_page=True)
    use = card.get_by_role("button", name="Use ")
    rate = float(use.inner_text().split()[-1])
    use.click()
    expect(page.locator('[class*="st-key-card-command"]').first).to_contain_text(f"train.lr={rate:g}")
    settled(page)
    suggested = _trained(page, runs_dir, {OTHER, default})
    rates = [queries.run_summary(runs_dir / run)["config"]["train"]["lr"] for run in (default, suggested)]
    assert rates == [parse_config({}).train.lr, rate]
    losses = [
        queries.scalars_frame(runs_dir / run, "loss", "validation")["value"].iloc[-1] for run in (default, suggested)
    ]
    assert losses[1] < losses[0] - 0.1, "nats, on the same held-out rows"


def _trained(page: Page, runs_dir: Path, others: set[str]) -> str:
    """Start what the form says and return the run, when it has finished."""
    page.get_by_role("button", name="Start", exact=True).click()

    def new() -> set[str]:
        return set(queries.list_runs(runs_dir)["id"]) - others

    until(lambda: len(new()) == 1, "a new run")
    [run] = new()
    until(lambda: queries.run_summary(runs_dir / run)["status"] == "finished", "its end")
    return run
