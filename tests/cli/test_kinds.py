"""Decodes and recycles on the command line: shown with their conclusion, listed, continued by their own code."""

from __future__ import annotations

from pathlib import Path

import pytest

from dynlora.cli import kinds
from dynlora.kinds.run_kind import RunKind, registry
from dynlora.store.writer import RunWriter
from tests.command_line import document, run
from tests.kinds.decode.written import written_decode


def test_show_begins_with_what_was_found(tmp_path: Path) -> None:
    folder = written_decode(tmp_path)
    record = document(run(tmp_path, "show", folder.name, "--json"))
    assert (record["kind"], record["verdict"]) == ("decode", None)
    text = run(tmp_path, "show", folder.name).output
    assert "a decode run" in text
    assert record["conclusion"] in text


def test_all_kinds_are_listed(tmp_path: Path) -> None:
    folder = written_decode(tmp_path)
    rows = document(run(tmp_path, "runs", "--where", "kind=decode", "--json"))
    assert [row["id"] for row in rows] == [folder.name]
    assert document(run(tmp_path, "runs", "--where", "kind=recycle", "--json")) == []


@pytest.mark.parametrize("name", sorted(registry()))
def test_resume_hands_a_run_to_its_kind(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = RunWriter.create(tmp_path, config_yaml="", meta={"kind": name}, max_steps=1)
    calls: list[tuple[object, ...]] = []

    def resume(self: RunKind, folder: Path, *, force: bool, progress: bool) -> None:
        calls.append((self.name, folder, force, progress))

    monkeypatch.setattr(type(registry()[name]), "resume", resume)
    kinds.resumed(folder, force=True, progress=False)
    assert calls == [(name, folder, True, False)]


def test_a_kind_of_a_later_version_is_refused_in_a_sentence(tmp_path: Path) -> None:
    folder = RunWriter.create(tmp_path, config_yaml="", meta={"kind": "dream"}, max_steps=1)
    ended = run(tmp_path, "resume", folder.name)
    assert ended.exit_code == 2
    assert "this version does not know its kind; use a newer one" in ended.output


def test_the_bounds_that_help_names_are_accepted(tmp_path: Path) -> None:
    """A bound that is itself refused was named for whole numbers."""
    result = run(tmp_path, "rsd", "--draft", "a", "--target", "b", "--seed", str(2**32))
    assert result.exit_code == 2
    assert f"is not in the range 0<=x<={2**32 - 1}" in result.output
