"""From an own CSV with odd rows to ranks and an adapter, all in the browser: repair, experiment, verdict, download."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import peft
import pytest
import torch
import transformers

from dynlora.config_files import read_run_config
from dynlora.engine.evaluation.inference import bake_gates, mean_gates
from dynlora.inference.session import GATE_ROWS, load_run
from dynlora.store import queries
from dynlora.training.inputs import read_data
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
@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")  # of PEFT, in transformers 5
def test_an_engineer_goes_from_a_csv_with_odd_rows_to_an_adapter(
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
    _agree(page, headline.inner_text())
    picture(page, "engineer-verdict", full_page=True)

    run = next(one for one in ids if queries.run_summary(runs_dir / one).strategy == "dynamic")
    page.goto(f"{server}/run?run={run}")
    settled(page)
    assert _copied(page).target_modules
    _download(page, tmp_path)
    _predicts_alike(tmp_path / f"{run}-peft", runs_dir / run, tiny_bert)


def _copied(page: Page) -> peft.LoraConfig:
    """Copy the ranks with one click, and return what the code makes."""
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.locator(".st-key-copy-code button").click()
    names: dict = {}
    exec(page.evaluate("navigator.clipboard.readText()"), names)
    return names["config"]


def _download(page: Page, place: Path) -> None:
    with page.expect_download() as started:
        page.get_by_role("button", name="Adapter").click()
    started.value.save_as(place / "adapter.zip")
    with zipfile.ZipFile(place / "adapter.zip") as archive:
        archive.extractall(place)


def _finished(runs_dir: Path, ids: list[str]) -> bool:
    states = {queries.run_summary(runs_dir / run).status for run in ids}
    assert not states & {"failed", "interrupted"}, states
    return states == {"finished"}


def _agree(page: Page, headline: str) -> None:
    """The verdict and the paired difference below it name the same number and interval."""
    (mean, low, high) = re.findall(
        r"(?:loss|accuracy) (\S+) \w*,? ?95.CI (\S+) to ([^,)]+)[,)]", headline.replace("\u00a0%\u00a0", ".")
    )[0]
    page.get_by_text("Paired difference of two groups").click()
    page.locator('[class*="st-key-card-paired"] .js-plotly-plot').first.wait_for()
    settled(page)
    paired = page.locator('[class*="st-key-card-paired"]').inner_text()
    assert mean in paired
    assert low in paired
    assert high in paired


def _predicts_alike(folder: Path, run: Path, tiny_bert: Path) -> None:
    """The downloaded adapter gives the run's logits in PEFT."""
    config = transformers.AutoConfig.from_pretrained(folder)
    base = transformers.AutoModelForSequenceClassification.from_pretrained(tiny_bert, config=config)
    adapted = peft.PeftModel.from_pretrained(base, str(folder)).eval()
    inputs = transformers.AutoTokenizer.from_pretrained(folder)(["the film was great"], return_tensors="pt")
    own, settings = load_run(run), read_run_config(run)
    if own.adapters.gates is not None:
        bake_gates(own, mean_gates(own, own.tokens(read_data(settings).train_sample(GATE_ROWS, settings.seed))))
    with torch.no_grad():
        assert (adapted(**inputs).logits - own.base.model(**inputs).logits).abs().max() < 1e-5
