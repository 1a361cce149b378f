"""Tags and notes of a run: added, removed, kept beside the run, and harmless whatever the file holds."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from dynlora.errors import ConfigError, CorruptRunError
from dynlora.store import notes
from dynlora.store.catalogue import run_rows
from dynlora.store.notes import Notes, annotate_notes, read_notes
from dynlora.store.writer import RunWriter
from tests.store.builder import finished_run, new_run


def test_tags_are_added_once_and_removed(tmp_path: Path) -> None:
    assert read_notes(tmp_path) == Notes()
    annotate_notes(tmp_path, add=["good", " to  keep "])
    assert annotate_notes(tmp_path, add=["good", "later"], note="two\nlines") == Notes(
        tags=("good", "to keep", "later"), note="two\nlines"
    )
    assert annotate_notes(tmp_path, remove=["good"]).note == "two\nlines"
    assert read_notes(tmp_path) == Notes(tags=("to keep", "later"), note="two\nlines")
    assert annotate_notes(tmp_path, note="").note == ""


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"add": [""]}, "1 to 40"),
        ({"add": ["a,b"]}, "without a comma"),
        ({"add": ["x" * 41]}, "1 to 40"),
        ({"add": ["a\x07b"]}, "printable"),
        ({"note": "x" * 4001}, "4,000"),
        ({"remove": ["nope"]}, "its tags: none"),
        ({"add": [str(n) for n in range(21)]}, "more than 20"),
    ],
)
def test_a_mistake_is_one_sentence_and_changes_nothing(tmp_path: Path, change: dict, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        annotate_notes(tmp_path, **change)
    assert not (tmp_path / notes.NOTES_NAME).exists()


@pytest.mark.parametrize(
    "data",
    [
        b"not json",
        b'{"tags": 3, "note": [1]}',
        b'{"tags": [1, null, {}]}',
        b'{"tags": ["", "  "]}',
    ],
)
def test_a_file_that_cannot_be_read_counts_as_none(tmp_path: Path, data: bytes) -> None:
    (tmp_path / notes.NOTES_NAME).write_bytes(data)
    assert read_notes(tmp_path) == Notes()


def test_what_a_file_holds_is_cut_to_the_rules(tmp_path: Path) -> None:
    wild = {"tags": [f"{n}" * 100 for n in range(50)], "note": "n" * 9000}
    (tmp_path / notes.NOTES_NAME).write_text(json.dumps(wild))
    stored_notes = read_notes(tmp_path)
    assert (len(stored_notes.tags), max(map(len, stored_notes.tags)), len(stored_notes.note)) == (20, 40, 4000)


@pytest.mark.parametrize("name", [notes.NOTES_NAME, notes.LOCK_NAME])
def test_links_are_not_followed(tmp_path: Path, name: str) -> None:
    secret = tmp_path / "secret"
    secret.write_text('{"tags": ["secret"], "note": "secret"}')
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / name).symlink_to(secret)
    assert read_notes(folder) == Notes()
    with pytest.raises(CorruptRunError, match="link"):
        annotate_notes(folder, add=["x"])
    assert "secret" in secret.read_text()


def test_a_folder_in_the_place_of_the_file_is_named(tmp_path: Path) -> None:
    """The name was that of a temporary file."""
    (tmp_path / notes.NOTES_NAME).mkdir()
    with pytest.raises(CorruptRunError, match=f"{notes.NOTES_NAME} is a link or no file; remove it"):
        annotate_notes(tmp_path, add=["x"])
    assert [path.name for path in tmp_path.iterdir() if path.name.count(".") > 2] == []


def test_several_at_once_lose_no_tag(tmp_path: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda n: annotate_notes(tmp_path, add=[f"tag {n}"]), range(16)))
    assert sorted(read_notes(tmp_path).tags) == sorted(f"tag {n}" for n in range(16))


def test_the_list_shows_them_while_a_run_trains_and_after(tmp_path: Path) -> None:
    folder = finished_run(tmp_path, 5)
    assert run_rows(tmp_path)[0]["tags"] == []
    annotate_notes(folder, add=["good"], note="why")
    assert (run_rows(tmp_path)[0]["tags"], run_rows(tmp_path)[0]["note"]) == (["good"], "why")
    live = new_run(tmp_path)
    with RunWriter.open(live, resume_from=None) as writer:
        annotate_notes(live, add=["watch"])
        writer.finish("finished")
    assert {tuple(row["tags"]) for row in run_rows(tmp_path)} == {("good",), ("watch",)}
