"""Decodes and recycles on the command line: shown with their conclusion, listed, continued by their own code."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from dynlora.cli import kinds
from dynlora.store.writer import RunWriter
from tests.command_line import document, run
from tests.viz.decodes import written_decode
from tests.viz.distils import written_distil
from tests.viz.recycles import written_recycle


def test_show_begins_with_what_was_found(tmp_path: Path) -> None:
    decode, recycle, distil = written_decode(tmp_path), written_recycle(tmp_path), written_distil(tmp_path)
    found = document(run(tmp_path, "show", decode.name, "--json"))
    assert (found["kind"], found["verdict"]) == ("decode", None)
    assert found["conclusion"].startswith("Accuracy not significantly different from the target alone")
    said = run(tmp_path, "show", recycle.name).output
    assert "a recycle run" in said
    assert "The meta-LoRA beats the base model" in said
    said = run(tmp_path, "show", distil.name).output
    assert "a distil run" in said
    assert "The student is nearer to its teachers than the base model" in said


def test_all_kinds_are_listed(tmp_path: Path) -> None:
    folder = written_decode(tmp_path)
    rows = document(run(tmp_path, "runs", "--where", "kind=decode", "--json"))
    assert [row["id"] for row in rows] == [folder.name]
    assert document(run(tmp_path, "runs", "--where", "kind=recycle", "--json")) == []


def test_resume_hands_a_run_to_the_code_of_its_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = written_decode(tmp_path, state=None)
    asked = []

    def runner(name: str) -> SimpleNamespace:
        return SimpleNamespace(resume=lambda folder, **options: asked.append((name, folder, options)))

    monkeypatch.setattr(kinds, "import_module", runner)
    kinds.resumed_other(tmp_path, folder.name, force=True, progress=False)
    assert asked == [("dynlora.decoding.run", folder, {"force": True, "progress": False})]


def test_a_kind_of_a_later_version_is_refused_in_a_sentence(tmp_path: Path) -> None:
    folder = RunWriter.create(tmp_path, config_yaml="", meta={"kind": "dream"}, max_steps=1)
    ended = run(tmp_path, "resume", folder.name)
    assert ended.exit_code == 2
    assert "this version does not know its kind; continue it with a newer one" in ended.output
