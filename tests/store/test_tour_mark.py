"""Whether the tour was taken is kept in the runs folder; what stands in the place of the file does no harm."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dynlora.safe_files import NotPlainFileError
from dynlora.store import queries
from dynlora.viz.tour import MARK_NAME, is_tour_taken, mark_tour_taken


def test_a_taken_tour_is_remembered(tmp_path: Path) -> None:
    runs_dir = tmp_path / "runs"
    assert not is_tour_taken(runs_dir)
    mark_tour_taken(runs_dir)
    mark_tour_taken(runs_dir)
    assert is_tour_taken(runs_dir)
    assert queries.list_runs([runs_dir]).empty


@pytest.mark.parametrize("kind", ["folder", "link", "huge", "pipe"])
def test_what_stands_in_its_place_is_left_alone(kind: str, tmp_path: Path) -> None:
    path, elsewhere = tmp_path / MARK_NAME, tmp_path / "elsewhere"
    elsewhere.write_text("mine", encoding="utf-8")
    make = {
        "folder": path.mkdir,
        "link": lambda: path.symlink_to(elsewhere),
        "huge": lambda: path.write_bytes(b"x" * 100_000),
        "pipe": lambda: os.mkfifo(path),
    }
    make[kind]()
    assert not is_tour_taken(tmp_path)
    if kind == "huge":
        mark_tour_taken(tmp_path)
        assert is_tour_taken(tmp_path)
    else:
        with pytest.raises(NotPlainFileError):
            mark_tour_taken(tmp_path)
    assert elsewhere.read_text("utf-8") == "mine"
