"""From a trained run to a smaller adapter in the browser: slide, download, load in PEFT, recover."""

from __future__ import annotations

import re
import shutil
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import peft
import pytest
import torch
import transformers

from dynlora.config_files import read_run_config
from dynlora.inference.compress import Compression, kept_sizes
from dynlora.store import queries
from dynlora.store.measurements import Compressed, Size
from tests.browser.conftest import Picture, settled
from tests.waiting import until

if TYPE_CHECKING:
    from playwright.sync_api import Page

ROWS = 64
"""Held-out examples that the sizes are measured on."""


@pytest.fixture(scope="module")
def measured(trained_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The measured sizes of the trained run's adapter, which take a minute of the inference child."""
    file = tmp_path_factory.mktemp("sizes") / "compress.json"
    for _ in kept_sizes(trained_run, "last", file, ROWS)[0]:
        pass
    return file


@pytest.mark.journey
@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")  # of PEFT, in transformers 5
def test_a_user_shrinks_an_adapter_takes_it_along_and_trains_on(
    server: str, page: Page, picture: Picture, runs_dir: Path, tmp_path: Path, trained_run: Path, measured: Path
) -> None:
    run = Path(shutil.copytree(trained_run, runs_dir / trained_run.name))
    shutil.copy(measured, run)
    compressed = Compressed.read(measured)
    assert compressed is not None
    page.goto(f"{server}/shrink?run={run.name}&tolerance=0.05")
    settled(page)
    start = compressed.smallest(0.05)
    assert start is not None
    size = next(one for one in compressed.of_method() if 0.4 <= one.share < 1 and one.parameters != start.parameters)
    _shows(page, compressed, start)
    _slide(page, compressed, size)
    settled(page)
    picture(page, "shrink-journey", full_page=True)

    folder = _downloaded(page, tmp_path, run.name)
    _loads_alike(folder, run, size)

    recovered = _launched(page, runs_dir, "Recover with 10 steps")
    assert queries.run_summary(recovered).ranks == compressed.ranks_of(size)
    share = f"{100 * size.parameters / compressed.parameters:.0f}"
    back = page.get_by_role("link", name=re.compile(rf"Starts from run .*, shrunk to {share} % of its parameters"))
    picture(page, "shrink-recovered", full_page=True)
    back.click()
    from playwright.sync_api import expect

    expect(page).to_have_url(re.compile(rf"/run\?run={run.name}"))


def _shows(page: Page, compressed: Compressed, size: Size) -> None:
    """The conclusion is about this size."""
    from playwright.sync_api import expect

    expect(page.get_by_text(f"({size.parameters:,} of {compressed.parameters:,})").first).to_be_visible()


def _slide(page: Page, compressed: Compressed, size: Size) -> None:
    """Move the slider with the keys until the page is about a size, which is then in the address."""
    from playwright.sync_api import TimeoutError as NotInTime

    sizes = sorted({one.parameters for one in compressed.of_method() if one.parameters})
    thumb = page.get_by_role("slider", name="Parameters kept")

    def is_there() -> bool:
        place = sizes.index(int(re.search(r"size=(\d+)", page.url)[1])) if "size=" in page.url else None  # pyright: ignore
        wanted = sizes.index(size.parameters)
        if place == wanted:
            return True
        before = page.url
        thumb.press("ArrowRight" if place is not None and place < wanted else "ArrowLeft")
        with suppress(NotInTime):  # a second press before the first has arrived would go too far
            page.wait_for_url(lambda url: url != before, timeout=20_000)
        settled(page)
        return False

    until(is_there, f"the slider at {size.parameters}")
    _shows(page, compressed, size)


def _downloaded(page: Page, place: Path, name: str) -> Path:
    """Download the adapter and return its folder."""
    with page.expect_download() as started:
        page.get_by_role("button", name="Download adapter").click()
    started.value.save_as(place / "adapter.zip")
    with zipfile.ZipFile(place / "adapter.zip") as archive:
        archive.extractall(place)
    return next(path.parent for path in place.glob("*/adapter_config.json") if path.parent.name.startswith(name))


def _compressed(run: Path, size: Size) -> Compression:
    """The run's own model at a size."""
    compression = Compression.of_run(run, rows=ROWS)
    compression.curve.keep(size.method, size.share)
    return compression


def _loads_alike(folder: Path, run: Path, size: Size) -> None:
    """The downloaded adapter gives in PEFT the logits of our own model at this size."""
    compression = _compressed(run, size)
    model, config = compression.curve.adapter.model, transformers.AutoConfig.from_pretrained(folder)
    base = transformers.AutoModelForSequenceClassification.from_pretrained(
        read_run_config(run).model.name, config=config
    )
    adapted = peft.PeftModel.from_pretrained(base, str(folder)).eval()
    batch = compression.curve.rows.tokens.batch(np.arange(16))
    del batch["labels"]
    with torch.no_grad():
        assert (adapted(**batch).logits - model.base.model(**batch).logits).abs().max() < 1e-5


def _launched(page: Page, runs_dir: Path, label: str) -> Path:
    """Press a button that queues a run, follow the link to it, and return its folder when it has finished."""
    from playwright.sync_api import expect

    page.get_by_role("button", name=label).click()
    page.get_by_role("link", name="Open the run that was queued").click()
    expect(page).to_have_url(re.compile(r"/run\?run="))
    folder = runs_dir / re.findall(r"\d{8}-\d{6}-[0-9a-f]{8}", page.url)[-1]

    def is_finished() -> bool:
        status = queries.run_summary(folder).status
        assert status not in ("failed", "interrupted"), queries.run_summary(folder).error
        return status == "finished"

    until(is_finished, f"the end of the run of {label}")
    expect(page.get_by_text("Finished").first).to_be_visible()
    settled(page)
    return folder
