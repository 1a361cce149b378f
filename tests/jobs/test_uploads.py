"""What a browser sends lies under the runs folder, by its content, whatever it is called."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from dynlora.errors import CorruptRunError, DataError
from dynlora.jobs import uploads


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("reviews.csv", "reviews.csv"),
        ("my reviews (1).CSV", "my-reviews-1.csv"),
        ("../../etc/cron.d/x.csv", "x.csv"),
        ("C:\\Windows\\a.jsonl", "a.jsonl"),
        ("a.tar.parquet", "a-tar.parquet"),
        (".csv", "data.csv"),
        ("con.csv", "data.csv"),
        ("LPT1.tsv", "data.tsv"),
        ("$(touch x);.csv", "touch-x.csv"),
        ("-rf.csv", "rf.csv"),
        ("a\x00b\n.csv", "a-b.csv"),
        ("Big Data.CSV.GZ", "Big-Data.csv.gz"),
        ("a.xlsx", "a.xlsx"),
        ("a.json", "a.json"),
        ("\u202egnp.csv", "gnp.csv"),
        ("x" * 300 + ".csv", "x" * 80 + ".csv"),
    ],
)
def test_names_are_made_plain(name: str, kept: str, runs_dir: Path) -> None:
    assert uploads.checked_name(name) == kept
    path = uploads.keep(runs_dir, name, b"text,label\n")
    assert path.relative_to(runs_dir).parts[0] == ".uploads"
    assert path.resolve().is_relative_to(runs_dir.resolve())


@pytest.mark.parametrize(
    "name", ["a.exe", "a", "csv", "a.csv.sh", "a.gz", "a.exe.gz", "a.tar.gz", "a.pkl", "a.csv/b.py", ""]
)
def test_other_endings_are_refused(name: str) -> None:
    with pytest.raises(DataError, match="the ending must be one of"):
        uploads.checked_name(name)


def test_the_same_file_is_kept_once_and_found_by_its_digest(runs_dir: Path) -> None:
    path = uploads.keep(runs_dir, "a.csv", b"text,label\nx,1\n")
    assert uploads.keep(runs_dir, "a.csv", b"text,label\nx,1\n") == path
    assert path.read_bytes() == b"text,label\nx,1\n"
    assert not path.stat().st_mode & (stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)
    assert uploads.find(runs_dir, path.parent.name) == path
    assert [item.name for item in path.parent.iterdir()] == ["a.csv"]


@pytest.mark.parametrize("digest", ["", "..", "../..", "0" * 11, "0" * 13, "g" * 12, "000000000000", "/etc"])
def test_an_address_finds_nothing_else(digest: str, runs_dir: Path) -> None:
    assert uploads.find(runs_dir, digest) is None


def test_empty_and_large_files_are_refused(runs_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match="is empty"):
        uploads.keep(runs_dir, "a.csv", b"")
    monkeypatch.setattr(uploads, "MAX_BYTES", 2**20)
    with pytest.raises(DataError, match="more than 1 MiB; put the file on this machine"):
        uploads.keep(runs_dir, "a.csv", b"x" * (2**20 + 1))
    assert not (runs_dir / ".uploads").exists()


def test_links_are_not_followed(runs_dir: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (runs_dir / ".uploads").symlink_to(outside, target_is_directory=True)
    with pytest.raises(CorruptRunError, match="is a link"):
        uploads.keep(runs_dir, "a.csv", b"text\n")
    assert list(outside.iterdir()) == []
    (runs_dir / ".uploads").unlink()
    path = uploads.keep(runs_dir, "a.csv", b"text\n")
    path.unlink()
    path.symlink_to(tmp_path / "secret.csv")
    with pytest.raises(CorruptRunError, match="not the file that was uploaded"):
        uploads.keep(runs_dir, "a.csv", b"text\n")
    assert uploads.find(runs_dir, path.parent.name) is None


ADAPTER = {"adapter_config.json": b"{}", "adapter_model.safetensors": b"tensors"}


def test_an_adapter_is_kept_by_the_digest_of_both_files(runs_dir: Path) -> None:
    folder = uploads.keep_adapter(runs_dir, ADAPTER)
    renamed = {"My Config.JSON": b"{}", "../../x.safetensors": b"tensors"}
    assert uploads.keep_adapter(runs_dir, renamed) == folder
    assert uploads.keep_adapter(runs_dir, {**ADAPTER, "tokenizer.json": b"{}", "README.md": b"x"}) == folder
    assert uploads.find_adapter(runs_dir, folder.name) == folder
    assert uploads.find(runs_dir, folder.name) is None
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == ADAPTER
    assert uploads.keep_adapter(runs_dir, {**ADAPTER, "adapter_config.json": b"{ }"}) != folder


@pytest.mark.parametrize(
    "files",
    [
        {},
        {"a.json": b"{}"},
        {"a.json": b"{}", "b.json": b"{}"},
        {"a.json": b"{}", "b.bin": b"x"},
        {"a.json": b"{}", "b.safetensors": b"x", "c.safetensors": b"x"},
        {"json": b"{}", "safetensors": b""},
    ],
)
def test_anything_but_the_two_files_of_an_adapter_is_refused(files: dict[str, bytes], runs_dir: Path) -> None:
    with pytest.raises(DataError, match=r"adapter has two|0 bytes"):
        uploads.keep_adapter(runs_dir, files)
    assert not (runs_dir / ".uploads").exists()


def test_links_in_the_place_of_an_adapter_are_not_followed(runs_dir: Path, tmp_path: Path) -> None:
    folder = uploads.keep_adapter(runs_dir, ADAPTER)
    (folder / "adapter_config.json").unlink()
    (folder / "adapter_config.json").symlink_to(tmp_path / "secret.json")
    assert uploads.find_adapter(runs_dir, folder.name) is None
    with pytest.raises(CorruptRunError, match="not the file that was uploaded"):
        uploads.keep_adapter(runs_dir, ADAPTER)


def test_an_adapter_is_no_table(runs_dir: Path) -> None:
    folder = uploads.keep_adapter(runs_dir, {"adapter_config.json": b"{}", "adapter_model.safetensors": b"x"})
    assert uploads.find(runs_dir, folder.name) is None
    path = uploads.keep(runs_dir, "rows.json.gz", b"x")
    assert uploads.find(runs_dir, path.parent.name) == path
