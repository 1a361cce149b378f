"""An adapter without a run on the Capacity page: sent, seen, linked; what is none is told in a sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dynlora.jobs import uploads
from dynlora.viz.ui import run_picker
from tests.pages.app import charts, is_text, open_page, plain, words
from tests.peft_adapter.files import lora, small_adapter, write_adapter
from tests.viz.runs import HOSTILE, make_run


def sent(folder: Path) -> list[tuple[str, bytes, str]]:
    """Return the files of a folder as a browser sends them."""
    return [(path.name, path.read_bytes(), "application/octet-stream") for path in sorted(folder.iterdir())]


def kept(runs_dir: Path, folder: Path) -> str:
    """Keep an adapter as the page does and return its digest."""
    return uploads.keep_adapter(runs_dir, {path.name: path.read_bytes() for path in folder.iterdir()}).name


def test_an_adapter_is_sent_and_its_address_restores_it(runs_dir: Path, tmp_path: Path) -> None:
    app = open_page("capacity", adapter="send")
    kinds = ("attention.self.query", "output.dense")
    ranks = {f"layer.{i}.{kind}": 1 + i + j for i in range(3) for j, kind in enumerate(kinds)}
    named: dict[str, Any] = {"target_modules": ["query", "dense"], "modules_to_save": ["classifier"]}
    folder = small_adapter(tmp_path / "adapter", rank_pattern=ranks, **named)
    app.file_uploader(key="adapter-files-send").set_value(sent(folder)).run()
    assert "6 modules, of ranks 1 to 4" in words(app)
    digest = app.query_params["adapter"]
    digest = digest[0] if isinstance(digest, list) else digest
    again = open_page("capacity", adapter=digest, number="norm")
    assert len(charts(again)) == 3
    (engines,) = [one.value for one in again.dataframe if "what to do" in one.value]
    assert any(remedy.startswith("merge it into the base model") for remedy in engines["what to do"])


def test_one_of_two_files_and_what_is_no_adapter_are_told(tmp_path: Path) -> None:
    app = open_page("capacity", adapter="send")
    alone = [file for file in sent(small_adapter(tmp_path / "small")) if file[0] == "adapter_config.json"]
    app.file_uploader(key="adapter-files-send").set_value(alone).run()
    assert len(app.error) == 1
    assert not charts(app)
    broken = write_adapter(tmp_path / "adapter", b"\x80\x04pickle")
    app.file_uploader(key="adapter-files-send").set_value(sent(broken)).run()
    assert "the file is damaged or not a safetensors file" in app.error[0].value.replace("\\", "")


@pytest.mark.parametrize("address", ["..", "<img src=x>"])
def test_an_address_that_keeps_nothing(address: str, runs_dir: Path) -> None:
    make_run(runs_dir)
    app = open_page("capacity", adapter=address)
    assert "There is no adapter at this address" in words(app)
    assert not app.error


@pytest.mark.parametrize("text", HOSTILE[::3])
def test_hostile_names_are_text(text: str, runs_dir: Path, tmp_path: Path) -> None:
    tensors = lora(f"layers.0.{text[:300]}".replace("\x00", ""), 2, 4, 4)
    folder = write_adapter(tmp_path / "adapter", tensors, base_model_name_or_path=text)
    app = open_page("capacity", adapter=kept(runs_dir, folder))
    assert len(charts(app)) == 3
    is_text(app)


def test_without_runs_there_is_a_link_and_a_dashboard_that_only_looks_takes_nothing(
    runs_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    links = [link.proto.label for link in open_page("capacity").get("page_link")]
    assert "Open another adapter" in links
    digest = kept(runs_dir, small_adapter(tmp_path / "adapter"))
    monkeypatch.setenv(run_picker.READ_ONLY_VARIABLE, "1")
    app = open_page("capacity", adapter="send")
    assert not app.get("file_uploader")
    assert "is read-only" in plain(app)
    assert len(charts(open_page("capacity", adapter=digest))) == 3
