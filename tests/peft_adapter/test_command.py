"""`dynlora inspect`: a table for people, one document for programs, a sentence for what is no adapter."""

from __future__ import annotations

import json
from pathlib import Path

from click.testing import CliRunner

from dynlora.cli.main import main
from tests.peft_adapter.files import small_adapter


def test_an_adapter_is_told_in_words_and_in_json(tmp_path: Path) -> None:
    folder = small_adapter(tmp_path)
    result = CliRunner().invoke(main, ["inspect", str(folder)])
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("LoRA adapter of some/model: 6 modules, of ranks 1 to 4, 15 components in total.\n")
    lines = result.stdout.splitlines()
    assert len(lines) == 2 + 6 + 1
    assert lines[-1].startswith("query has the largest updates, with ")
    document = json.loads(CliRunner().invoke(main, ["inspect", str(folder), "--json"]).stdout)
    assert set(document) == {"folder", "peft_type", "base_model", "modules", "other_parameters", "notes"}
    assert [len(module["singular_values"]) for module in document["modules"]] == [1, 2, 2, 3, 3, 4]


def test_what_is_no_adapter_is_one_sentence(tmp_path: Path) -> None:
    for folder in (tmp_path / "nothing", tmp_path):
        result = CliRunner().invoke(main, ["inspect", str(folder)])
        assert (result.exit_code, result.stdout) == (2, "")
        assert len(result.stderr.splitlines()) == 1
        assert "give" in result.stderr
