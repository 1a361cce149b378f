"""An adapter downloaded in one click from the page of its run, and what PEFT makes of it."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import peft
import pytest
import torch
import transformers

from dynlora.engine.evaluation.inference import bake_gates, mean_gates
from dynlora.inference.session import GATE_ROWS, load_run
from dynlora.training.inputs import read_data
from tests.browser.conftest import settled

if TYPE_CHECKING:
    from playwright.sync_api import Page


@pytest.mark.journey
@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")  # of PEFT, in transformers 5
def test_one_click_gives_an_adapter_that_peft_loads(
    server: str, page: Page, trained_run: Path, tiny_bert: Path, runs_dir: Path, tmp_path: Path
) -> None:
    from dynlora.config_files import read_run_config

    shutil.copytree(trained_run, runs_dir / trained_run.name)
    page.goto(f"{server}/run?run={trained_run.name}")
    settled(page)
    with page.expect_download() as started:
        page.get_by_role("button", name="Adapter").click()
        page.get_by_text("Making the zip file").wait_for()
    packed = tmp_path / "adapter.zip"
    started.value.save_as(packed)
    with zipfile.ZipFile(packed) as archive:
        archive.extractall(tmp_path)
    folder = tmp_path / f"{trained_run.name}-peft"
    assert (folder / "README.md").is_file()

    config = transformers.AutoConfig.from_pretrained(folder)
    base = transformers.AutoModelForSequenceClassification.from_pretrained(tiny_bert, config=config)
    adapted = peft.PeftModel.from_pretrained(base, str(folder)).eval()
    inputs = transformers.AutoTokenizer.from_pretrained(folder)(["the film was great"], return_tensors="pt")
    own = load_run(trained_run)
    settings = read_run_config(trained_run)
    bake_gates(own, mean_gates(own, own.tokens(read_data(settings).train_sample(GATE_ROWS, settings.seed))))
    with torch.no_grad():
        assert (adapted(**inputs).logits - own.base.model(**inputs).logits).abs().max() < 1e-5
