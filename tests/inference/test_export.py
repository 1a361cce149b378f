"""What is exported: it loads with the snippet of its card, names no cache folder, and is whole or not there."""

from __future__ import annotations

import json
import re
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from dynlora import assets
from dynlora.errors import ConfigError, StorageError
from dynlora.inference.export import export_run
from dynlora.inference.forms import forms
from dynlora.inference.model_card import Facts, curve, model_card
from dynlora.store import queries
from dynlora.training import folder_work
from tests.inference.averaged import averaged
from tests.summaries import summary_with

TEXTS = ["the film was great", "a dull plot"]


@pytest.fixture(params=["peft", "merged"])
def out(request: pytest.FixtureRequest, trained_run: Path, exported: Callable[[Path, str], Path]) -> Path:
    """The trained run in one of the formats."""
    return exported(trained_run, request.param)


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")  # of PEFT, in transformers 5
def test_the_snippet_of_the_card_gives_the_runs_predictions(
    out: Path, trained_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = (out / "README.md").read_text("utf-8")
    (snippet,) = re.findall(r"```python\n(.*?)\n```", card, re.DOTALL)
    monkeypatch.chdir(out)
    names: dict = {}
    exec(snippet, names)
    inputs = names["tokenizer"](TEXTS, padding=True, return_tensors="pt")
    with torch.no_grad():
        logits = names["model"](**inputs).logits
    with torch.no_grad():
        own = averaged(trained_run).base.model(**inputs).logits
    np.testing.assert_allclose(logits.numpy(), own.numpy(), atol=1e-5)
    labels = names["model"].config.id2label
    assert {int(key): value for key, value in labels.items()} == {0: "bad", 1: "good"}


def test_no_file_names_a_folder_of_this_machine_but_a_local_base_model(
    out: Path, tiny_data: Path, tiny_bert: Path
) -> None:
    for path in (*out.glob("*.json"), out / "README.md"):
        text = path.read_text("utf-8")
        assert str(tiny_data) not in text, path.name
        if out.name == "merged" and path.name != "README.md":
            assert str(tiny_bert) not in text, path.name


def test_the_base_model_is_named_as_others_find_it(tiny_bert: Path) -> None:
    assert assets.shared_model_name("minilm") == "sentence-transformers/all-MiniLM-L6-v2"
    assert assets.shared_model_name("smollm2-135m") == "HuggingFaceTB/SmolLM2-135M-Instruct"
    assert assets.shared_model_name("owner/model") == "owner/model"
    assert assets.shared_model_name(str(tiny_bert)) == str(tiny_bert.resolve())


def test_an_archive_holds_the_same_files(
    trained_run: Path, exported: Callable[[Path, str], Path], tmp_path: Path
) -> None:
    file = tmp_path / "adapter.zip"
    export_run(trained_run, file, format="peft")
    with zipfile.ZipFile(file) as archive:
        assert sorted(archive.namelist()) == sorted(
            f"adapter/{path.name}" for path in exported(trained_run, "peft").iterdir()
        )
        assert archive.testzip() is None
    assert [path.name for path in tmp_path.iterdir()] == ["adapter.zip"]
    with pytest.raises(ConfigError, match="exists and is a file; give another name"):
        export_run(trained_run, file)


def test_a_disk_that_fills_leaves_nothing(trained_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("dynlora.engine.evaluation.export.write_peft", full)
    for out in (tmp_path / "folder", tmp_path / "file.zip"):
        with pytest.raises(StorageError, match=r"cannot be written \(No space left on device\); free some space"):
            export_run(trained_run, out)
    assert list(tmp_path.iterdir()) == []
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    export_run(trained_run, Path())
    assert "README.md" in [path.name for path in tmp_path.iterdir()], "an empty folder that is there is filled"
    blocked = tmp_path / "blocked"
    blocked.write_text("a file")
    with pytest.raises(StorageError, match="cannot be written"):
        export_run(trained_run, blocked / "out")


def test_a_disk_that_fills_while_an_empty_folder_is_filled_leaves_it_empty(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    staging, out = two_files(tmp_path), tmp_path / "out"
    out.mkdir()
    move = shutil.move

    def full(path: Path, place: Path) -> None:
        if any(out.iterdir()):
            raise OSError(28, "No space left on device")
        move(path, place)

    monkeypatch.setattr(shutil, "move", full)
    with pytest.raises(OSError, match="No space"):
        folder_work._place_folder(staging, out)  # pyright: ignore[reportPrivateUsage]
    assert list(out.iterdir()) == []


def two_files(tmp_path: Path) -> Path:
    """Return a folder of what is to be placed elsewhere."""
    staging = tmp_path / "staging"
    staging.mkdir()
    for name in ("a", "b"):
        (staging / name).touch()
    return staging


def test_a_new_folder_appears_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "move", lambda *_: pytest.fail("one file after the other"))
    folder_work._place_folder(two_files(tmp_path), tmp_path / "out")  # pyright: ignore[reportPrivateUsage]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a", "b"]


def test_nothing_of_a_run_is_markup_in_its_card(trained_run: Path) -> None:
    summary = {
        **queries.run_summary(trained_run).model_dump(),
        "name": "x` <img src=x>\n# title",
        "strategy": "a\nb: c",
        "data": "`|`",
    }
    report = {
        "folder": "out",
        "format": "peft",
        "form": "peft",
        "which": "last",
        "baked": False,
        "metrics_after": {"loss": 0.5},
    }
    summary["labels"] = ["a|<img src=x onerror=1>", "b"]
    facts = Facts(
        summary_with(summary),
        "owner/base",
        True,
        True,
        "AutoModelForSequenceClassification",
        report,
        [(0, 0.7)],
        verdict="dynamic <img src=x> *beats* [lora](http://x) | `y`",
        modules=[(0, "query", 2)],
    )
    card = model_card(facts)["README.md"]
    assert "\n# title" not in card
    assert "with rounded weights" in card
    assert r"| Labels | `a\|<img src=x onerror=1>`, `b` |" in card
    for line in card.splitlines():
        bars = len(re.findall(r"(?<!\\)\|", line)) if line.startswith("|") else 0
        assert bars in (0, 3), "nothing of a run splits a table"
        assert "<img" not in re.sub("`[^`]*`", "", line), "outside of code it would be markup"
    assert r"dynamic &lt;img src=x&gt; \*beats\* \[lora\](http://x) \| \`y\`" in card
    assert "![Rank by module" in card
    head = card.split("---")[1]
    assert json.loads(head.split("base_model: ")[1].splitlines()[0]) == "owner/base"
    assert len([line for line in head.splitlines() if line]) == 4
    assert "base_model" not in model_card(replace(facts, is_on_hub=False))["README.md"].split("---")[1]


@pytest.mark.parametrize(
    ("form", "command"),
    [
        ("peft", "vllm serve owner/base --enable-lora --max-lora-rank 32 --lora-modules out=./out\n"),
        ("uniform", "--enable-lora --max-lora-rank 24 --lora-paths out=./out\n"),
        ("gguf", "llama-server -m BASE.gguf --lora adapter.gguf"),
        ("ollama", "ollama create out -f Modelfile\n"),
        ("mlx", "mlx_lm.generate --model owner/base --adapter-path out"),
        ("merged", "vllm serve out\n"),
        ("gated", ""),
        ("onnx", ""),
        ("onnx-gated", ""),
    ],
)
def test_the_card_of_a_model_that_writes_says_how_to_serve_it(form: str, command: str) -> None:
    report = {"folder": "out", "format": forms()[form].format, "form": form, "which": "last", "baked": False}
    report["metrics_after"] = {"loss": 0.5}
    summary = {"name": "n", "step": 1, "ranks": {"a`b": 24, "c": 0}}
    facts = Facts(
        summary_with(summary),
        "owner/base",
        True,
        False,
        "AutoModelForCausalLM",
        report,
        [],
        generates=True,
        modules=[(0, "query", 24), (1, "query", 0)],
    )
    card = model_card(facts)["README.md"]
    assert command in card.partition("## Serve it")[2]
    assert 'tags: ["lora", "dynlora"]' in card
    assert ("dynlora check" in card) == (form == "peft")
    assert card.partition("## Load it")[2].partition("\n## ")[0].count("```") == 2
    assert 'lora_target_modules:\n  - "a\'b"\n```' in card


def test_a_curve_of_one_value_is_a_line() -> None:
    assert "nan" not in curve([(0, 0.5), (10, 0.5)])
