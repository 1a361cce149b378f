"""Saved views: kept in order, checked when saved and when read, and harmless whatever the file holds."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from dynlora.errors import ConfigError, CorruptRunError, SearchError
from dynlora.store import notes
from dynlora.store.catalogue import run_rows
from dynlora.store.notes import View, delete_view, read_views, save_view


def test_views_are_saved_replaced_and_forgotten(tmp_path: Path) -> None:
    assert read_views(tmp_path) == ()
    save_view(tmp_path, " for  the paper ", ' name="a  b" ')
    save_view(tmp_path, "good", "accuracy>0.8")
    assert save_view(tmp_path, "for the paper", "tag:paper") == (
        View(name="for the paper", query="tag:paper"),
        View(name="good", query="accuracy>0.8"),
    )
    assert read_views(tmp_path) == save_view(tmp_path, "good", "accuracy>0.8")
    assert delete_view(tmp_path, "good") == (View(name="for the paper", query="tag:paper"),)
    assert run_rows(tmp_path) == []


def test_a_missing_folder_is_made_and_spaces_in_quotes_are_kept(tmp_path: Path) -> None:
    save_view(tmp_path / "runs", "x", ' name="a  b" ')
    assert read_views(tmp_path / "runs") == (View(name="x", query='name="a  b"'),)


@pytest.mark.parametrize(
    ("name", "query", "words"),
    [
        ("", "a", "1 to 40"),
        ("x" * 41, "a", "1 to 40"),
        ("a\x07b", "a", "printable"),
        ("x", " ", "enter a search first"),
        ("x", "a and", "must be here"),
        ("x", "a" + " " * 1000 + "b", "more than 1,000"),
    ],
)
def test_a_mistake_is_one_sentence_and_changes_nothing(tmp_path: Path, name: str, query: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        save_view(tmp_path, name, query)
    assert not (tmp_path / notes.VIEWS_NAME).exists()


def test_there_is_an_end_to_them(tmp_path: Path) -> None:
    for number in range(notes.MAX_VIEWS):
        save_view(tmp_path, str(number), "a")
    with pytest.raises(ConfigError, match="more than 30; delete one first"):
        save_view(tmp_path, "one more", "a")
    save_view(tmp_path, "3", "another")
    with pytest.raises(ConfigError, match="there is no such view"):
        delete_view(tmp_path, "one more")


@pytest.mark.parametrize(
    "data",
    [
        b"not json",
        b'{"views": 3}',
        b'{"views": [1, null, {}, {"name": 1}]}',
        b'{"views": [{"name": "x", "query": "a and"}, {"name": "", "query": "a"}, {"name": "y", "query": 3}]}',
    ],
)
def test_a_file_that_cannot_be_read_counts_as_none(tmp_path: Path, data: bytes) -> None:
    (tmp_path / notes.VIEWS_NAME).write_bytes(data)
    assert read_views(tmp_path) == ()


def test_what_a_file_holds_is_cut_to_the_rules(tmp_path: Path) -> None:
    wild = {"views": [{"name": f"n{number % 50}", "query": "<b> or"} for number in range(9)]}
    wild["views"] += [{"name": f"n{number}", "query": "a", "more": 1} for number in range(99)]
    (tmp_path / notes.VIEWS_NAME).write_text(json.dumps(wild))
    views = read_views(tmp_path)
    assert (len(views), {view.query for view in views}) == (notes.MAX_VIEWS, {"a"})


@pytest.mark.parametrize("name", [notes.VIEWS_NAME, notes.VIEWS_LOCK])
def test_links_are_not_followed(tmp_path: Path, name: str) -> None:
    secret = tmp_path / "secret"
    secret.write_text('{"views": [{"name": "secret", "query": "a"}]}')
    folder = tmp_path / "runs"
    folder.mkdir()
    (folder / name).symlink_to(secret)
    assert read_views(folder) == ()
    with pytest.raises(CorruptRunError, match="link"):
        save_view(folder, "x", "a")
    assert "secret" in secret.read_text()


def test_several_at_once_lose_no_view(tmp_path: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda n: save_view(tmp_path, f"view {n}", "a"), range(12)))
    assert sorted(view.name for view in read_views(tmp_path)) == sorted(f"view {n}" for n in range(12))


def test_a_view_that_is_no_search_is_a_search_error(tmp_path: Path) -> None:
    with pytest.raises(SearchError) as caught:
        save_view(tmp_path, "x", "accuracy>")
    assert caught.value.column == 10
