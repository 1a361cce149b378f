"""`dynlora tag`: what it prints, keeps and refuses."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.command_line import document, run
from tests.store.builder import finished_run


def test_tags_are_printed_kept_and_listed(runs_dir: Path) -> None:
    run_id = finished_run(runs_dir, 3).name
    notes = document(run(runs_dir, "tag", run_id, "--add", "good", "--add", "old", "--note", "a note", "--json"))
    assert notes == {"id": run_id, "tags": ["good", "old"], "note": "a note"}
    assert run(runs_dir, "tag", run_id, "--remove", "old").stdout == f"{run_id}: good\na note\n"
    assert document(run(runs_dir, "runs", "--json"))[0]["tags"] == ["good"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["../x", "--add", "x"], "cannot be used"),
        (["{id}", "--add", "a,b"], "without a comma"),
    ],
)
def test_a_mistake_is_one_line(runs_dir: Path, arguments: list[str], words: str) -> None:
    run_id = finished_run(runs_dir, 3).name
    done = run(runs_dir, "tag", *(argument.format(id=run_id) for argument in arguments))
    assert done.exit_code == 2
    assert words in done.stderr
    assert len(done.stderr.splitlines()) == 1
