"""Runs in a bucket of a real S3 server on this machine (moto's, over HTTP): sent, fetched, opened, broken, queried."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pandas as pd
import pytest

import dynlora
from dynlora.errors import RemoteError
from dynlora.remote.place import Place
from dynlora.remote.sync import Mirror, pull, push, read_manifest
from dynlora.store.notes import annotate_notes
from dynlora.store.run import open_run
from tests.command_line import document, run
from tests.remote.places import files_of, rows_of, tree_of
from tests.store.builder import finished_run

pytestmark = pytest.mark.slow
SECRET = "not-a-real-secret-key"


def started() -> Any:
    """Return an S3 server that listens; its package takes long to load, and every worker reads this file."""
    from moto.server import ThreadedMotoServer

    moto = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    moto.start()
    return moto


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """Address of an S3 server on the loopback."""
    service = started()
    host, port = service.get_host_and_port()
    yield f"http://{host}:{port}"
    service.stop()


@pytest.fixture
def bucket(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """An empty folder of a bucket; credentials and server come from the environment, as a user's do."""
    for name, value in {
        "AWS_ENDPOINT_URL": server,
        "AWS_ACCESS_KEY_ID": "a-key",
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": str(tmp_path / "no-config"),
    }.items():
        monkeypatch.setenv(name, value)
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    disk = fsspec.filesystem("s3")
    if not disk.exists("lab"):
        disk.mkdir("lab")
    return f"s3://lab/{tmp_path.name}"


def test_a_run_in_a_bucket_is_the_run(bucket: str, runs_dir: Path, tmp_path: Path) -> None:
    folder = finished_run(runs_dir, 300, "a-run")
    report = document(run(runs_dir, "push", "a-run", bucket, "--json"))
    assert [(row["id"], row["status"]) for row in report["runs"]] == [("a-run", "sent")]
    assert document(run(runs_dir, "sync", bucket, "--json"))["runs"][0]["status"] == "unchanged"
    report = document(run(tmp_path / "here", "pull", f"{bucket}/a-run", "--json"))
    assert report["runs"][0]["status"] == "fetched"
    copy = tmp_path / "here" / "a-run"
    assert rows_of(copy, tmp_path / "a") == rows_of(folder, tmp_path / "b")
    assert files_of(copy) == files_of(folder)
    there = dynlora.open_run(f"{bucket}/a-run")
    pd.testing.assert_frame_equal(there.signal("importance"), open_run(folder).signal("importance"))
    pd.testing.assert_frame_equal(there.scalars(), open_run(folder).scalars())
    assert there.summary["folder"] == f"{bucket}/a-run"
    everything = json.dumps(report) + "".join(p.read_text("utf-8", "replace") for p in copy.rglob("*") if p.is_file())
    assert SECRET not in everything


def test_a_transfer_that_breaks_leaves_the_old_run(
    bucket: str, runs_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = finished_run(tmp_path / "old", 20, "a-run"), finished_run(tmp_path / "new", 40, "a-run")
    push(old, Place(bucket))
    put = Place.put
    for at in (0, 3):
        calls: list[str] = []

        def breaks(place: Place, source: Path, name: str, at: int = at, calls: list[str] = calls) -> None:
            calls.append(name)
            if len(calls) > at:
                raise RemoteError("the connection is gone")
            put(place, source, name)

        with monkeypatch.context() as patch:
            patch.setattr(Place, "put", breaks)
            with pytest.raises(RemoteError):
                push(new, Place(bucket), force=True)
        pull(Place(bucket), "a-run", tmp_path / f"here-{at}")
        assert len(open_run(tmp_path / f"here-{at}" / "a-run").signal("rank")) == 20
    push(new, Place(bucket), force=True)
    assert len(dynlora.open_run(f"{bucket}/a-run").signal("rank")) == 40


def test_a_server_that_ends_in_the_middle_is_one_sentence_and_leaves_nothing(
    runs_dir: Path, tmp_path: Path, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = started()
    host, port = server.get_host_and_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    place = Place(bucket)
    push(finished_run(runs_dir, 20, "a-run"), place)
    fetch, names = Place.fetch, []

    def until_it_ends(place: Place, name: str, target: Path, size: int, sha256: str) -> None:
        names.append(name)
        if len(names) == 5:
            server.stop()
        fetch(place, name, target, size, sha256)

    monkeypatch.setattr(Place, "fetch", until_it_ends)
    with pytest.raises(RemoteError, match="cannot be used .*; check address, credentials and network") as error:
        pull(place, "a-run", tmp_path / "here")
    assert "\n" not in str(error.value)
    assert SECRET not in str(error.value)
    assert tree_of(tmp_path / "here") == []


def test_a_bucket_that_is_not_there_is_one_sentence(bucket: str, runs_dir: Path) -> None:
    folder = finished_run(runs_dir, 20, "a-run")
    assert read_manifest(Place("s3://no-such-bucket/x"), "a-run") is None
    with pytest.raises(RemoteError, match="bucket does not exist"):
        push(folder, Place("s3://no-such-bucket/x"))


def test_a_bucket_is_shown_as_a_copy_that_follows_it(bucket: str, runs_dir: Path) -> None:
    folder = finished_run(runs_dir, 20, "a-run")
    push(folder, Place(bucket))
    mirror = Mirror(bucket)
    assert [one.status for one in mirror.refresh()] == ["fetched"]
    annotate_notes(folder, note="new")
    push(folder, Place(bucket))
    assert [one.status for one in mirror.refresh()] == ["updated"]
    assert mirror.refresh() == []
    summary = document(run(mirror.folder, "show", "a-run", "--json"))
    assert summary["status"] == "finished"


def test_duckdb_asks_all_runs_of_a_bucket(bucket: str, runs_dir: Path) -> None:
    import duckdb

    for number in range(3):
        push(finished_run(runs_dir, 20, f"run-{number}"), Place(bucket))
    with duckdb.connect() as connection:
        connection.register_filesystem(fsspec.filesystem("s3"))
        rows: list[Any] = connection.sql(
            f"SELECT run, summary->>'strategy' FROM read_json('{bucket}/*/manifest.json', "
            "columns={run: 'VARCHAR', summary: 'JSON'}) ORDER BY run"
        ).fetchall()
    assert rows == [(f"run-{number}", "dynamic") for number in range(3)]
