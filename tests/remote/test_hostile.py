"""A manifest, a table or a file that somebody else made is taken only where it is a run's, and else leaves nothing."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dynlora.cli.main import main
from dynlora.errors import ConfigError, CorruptRunError, DynloraError
from dynlora.remote import parquet_tables
from dynlora.remote.contents import LIMITS, MANIFEST_NAME, MAX_BYTES, Entry, decoded
from dynlora.remote.place import Place
from dynlora.remote.sync import pull, push, read_manifest
from dynlora.store import whole_tables
from tests.command_line import run
from tests.remote.places import tree_of
from tests.store.builder import finished_run

Change = Callable[[dict[str, Any]], Any]


@pytest.fixture
def there(tmp_path: Path, runs_dir: Path) -> Path:
    """A folder of runs with one run, `a-run`."""
    push(finished_run(runs_dir, 20, "a-run"), Place(str(tmp_path / "there")))
    return tmp_path / "there"


def refused(there: Path, runs_dir: Path, match: str) -> None:
    """Check that the run is refused in one sentence and that nothing of it is in the runs folder."""
    target = runs_dir.parent / "here"
    with pytest.raises(CorruptRunError, match=match) as error:
        pull(Place(str(there)), "a-run", target)
    assert "\n" not in str(error.value)
    assert tree_of(target) == []


def sealed(document: dict[str, Any]) -> None:
    """Give a changed manifest the revision that fits its files, as an attacker can."""
    rows = sorted(f"{row['path']}\0{row['bytes']}\0{row['sha256']}\n" for row in document["files"])
    document["revision"] = hashlib.sha256("".join(rows).encode()).hexdigest()


def change_manifest(there: Path, change: Change) -> None:
    path = there / "a-run" / MANIFEST_NAME
    document = json.loads(path.read_text("utf-8"))
    if (changed := change(document)) is not None:
        document = changed
    path.write_text(document if isinstance(document, str) else json.dumps(document), "utf-8")


def files(document: dict[str, Any], rows: list[Any]) -> None:
    """Give a manifest other files, with a revision that fits."""
    document["files"] = rows
    sealed(document)


def first(document: dict[str, Any], **values: Any) -> None:
    """Change the first file of a manifest, with a key and a revision that fit."""
    row = document["files"][0]
    row |= values
    if isinstance(row["path"], str) and isinstance(row["sha256"], str):
        row["key"] = Entry(row["path"], 0, row["sha256"]).key
    sealed(document)


HOSTILE: dict[str, tuple[Change, str]] = {
    "a path that leads up": (lambda m: first(m, path="../../evil"), "which no run has"),
    "an absolute path": (lambda m: first(m, path="/etc/passwd"), "which no run has"),
    "a path that leads up inside": (lambda m: first(m, path="adapter/../run.db"), "which no run has"),
    "the store itself": (lambda m: first(m, path="run.db"), "which no run has"),
    "a lock": (lambda m: first(m, path=".lock"), "which no run has"),
    "another case of a name": (lambda m: first(m, path="CONFIG.yaml"), "which no run has"),
    "a pickle": (lambda m: first(m, path="adapter/state.pkl"), "which no run has"),
    "no path": (lambda m: first(m, path=None), "which no run has"),
    "a file twice": (lambda m: files(m, [*m["files"], m["files"][0]]), "names a file twice"),
    "a key elsewhere": (lambda m: m["files"][0].update(key="../b-run/config.yaml"), "does not follow from its digest"),
    "a huge size": (lambda m: first(m, bytes=2**62), "which it cannot have"),
    "a size below zero": (lambda m: first(m, bytes=-1), "which it cannot have"),
    "a size that is no number": (lambda m: first(m, bytes="5"), "which it cannot have"),
    "a size that is true": (lambda m: first(m, bytes=True), "which it cannot have"),
    "a digest of another kind": (lambda m: first(m, sha256="0" * 40), "gives no digest"),
    "a digest in capitals": (lambda m: first(m, sha256="A" * 64), "gives no digest"),
    "no files": (lambda m: m.update(files=[]), "names 0 files"),
    "a million files": (lambda m: m.update(files=[{}] * 1_000_000), "over the limit"),
    "more files than a run has": (lambda m: m.update(files=[{}] * 1_000), "names 1,000 files"),
    "files that are no list": (lambda m: m.update(files={"0": {}}), "names 0 files"),
    "no table of facts": (
        lambda m: files(m, [row for row in m["files"] if row["path"] != "tables/meta.parquet"]),
        "lacks the table meta",
    ),
    "another run": (lambda m: m.update(run="b-run"), "is of run b-run"),
    "an unknown format": (lambda m: m.update(format=2), "has format 2, this dynlora reads 1"),
    "no format": (lambda m: m.pop("format") and None, "has format None"),
    "a revision of others": (lambda m: m.update(revision="0" * 64), "other files than its revision says"),
    "a time that is none": (lambda m: m.update(pushed_at="today"), "when the run was sent"),
    "an infinite time": (lambda m: json.dumps(m | {"pushed_at": float("inf")}), "not JSON"),
    "NaN": (lambda m: json.dumps(m | {"heartbeat": float("nan")}), "not JSON"),
    "no JSON": (lambda m: json.dumps(m)[:-20], "not JSON, possibly cut short"),
    "nothing": (lambda m: "", "not JSON"),
    "a list": (lambda m: "[1, 2]", "not an object"),
    "depth": (lambda m: "[" * 100_000 + "]" * 100_000, "not JSON"),
    "deep facts": (
        lambda m: json.dumps(m).replace('"summary": {', '"summary": {"a": ' + "[" * 99 + "]" * 99 + ", ", 1),
        "cannot be read",
    ),
    "size": (lambda m: json.dumps(m) + " " * MAX_BYTES, "over the limit"),
}


@pytest.mark.parametrize("case", list(HOSTILE))
def test_a_hostile_manifest_is_refused_and_leaves_nothing(case: str, there: Path, runs_dir: Path) -> None:
    change, message = HOSTILE[case]
    change_manifest(there, change)
    refused(there, runs_dir, message)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=300), place=st.integers(0, 10**6), cut=st.booleans())
def test_a_manifest_changed_anywhere_is_refused_or_still_names_files_of_a_run(
    there: Path, data: bytes, place: int, cut: bool
) -> None:
    raw = (there / "a-run" / MANIFEST_NAME).read_bytes()
    place %= len(raw)
    changed = raw[:place] + data + raw[place + (len(data) if cut else 0) :]
    try:
        manifest = decoded(changed, "a-run", "here")
    except CorruptRunError:
        return
    assert {entry.path for entry in manifest.files} <= set(LIMITS)
    assert all(0 <= entry.size <= LIMITS[entry.path] and ".." not in entry.key for entry in manifest.files)


def files_there(there: Path) -> dict[str, Path]:
    manifest = read_manifest(Place(str(there)), "a-run")
    assert manifest is not None
    return {entry.path: there / "a-run" / entry.key for entry in manifest.files}


def test_a_changed_byte_of_any_file_is_noticed(there: Path, runs_dir: Path) -> None:
    for path in files_there(there).values():
        if whole := path.read_bytes() if path.exists() else b"":
            path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
            refused(there, runs_dir, "its digest differs")
            path.write_bytes(whole[:-1])
            refused(there, runs_dir, "its digest differs")
            path.write_bytes(whole)
    assert pull(Place(str(there)), "a-run", runs_dir.parent / "here").status == "fetched"


def test_a_link_in_the_place_of_a_file_is_not_followed(there: Path, runs_dir: Path, tmp_path: Path) -> None:
    path = files_there(there)["config.yaml"]
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    refused(there, runs_dir, "is a link or no regular file")
    manifest = there / "a-run" / MANIFEST_NAME
    manifest.rename(tmp_path / "manifest")
    manifest.symlink_to(tmp_path / "manifest")
    refused(there, runs_dir, "is a link or no regular file")


def with_table(there: Path, table: str, make: Callable[[Path], None]) -> None:
    """Put another table into a run, with digests that fit, as an attacker can."""
    new = there / "new.parquet"
    make(new)
    data = new.read_bytes()
    path, digest = f"tables/{table}.parquet", hashlib.sha256(data).hexdigest()
    entry = Entry(path, len(data), digest)

    def change(document: dict[str, Any]) -> None:
        rows = [row for row in document["files"] if row["path"] != path]
        document["files"] = [*rows, {"path": path, "key": entry.key, "bytes": len(data), "sha256": digest}]
        sealed(document)

    (there / "a-run" / entry.key).write_bytes(data)
    new.unlink()
    change_manifest(there, change)


def bytes_to(path: Path, content: bytes) -> None:
    """Write a file that is no table."""
    path.write_bytes(content)


def written(table: str, **columns: list[Any]) -> Callable[[Path], None]:
    """Return what writes a table of dynlora's own columns with other content."""
    schema = parquet_tables.arrow_schema(table)
    rows = len(next(iter(columns.values())))
    values = {name: columns.get(name, ["a-run"] * rows) for name in schema.names}
    return lambda path: pq.write_table(pa.table(values, schema), path, store_schema=False)


VECTOR = {"signal": [1], "step": [99], "crc": [0]}
TABLES: dict[str, tuple[str, Callable[[Path], None], str]] = {
    "other columns": ("scalars", lambda path: pq.write_table(pa.table({"name": ["loss"]}), path), "has other columns"),
    "no Parquet": ("events", lambda path: bytes_to(path, b"PAR1" + bytes(100) + b"PAR1"), "cannot be read"),
    "a row of another run": (
        "groups",
        written("groups", run=["b-run"], position=[0], name=["x"]),
        "rows of another run",
    ),
    "two statuses": (
        "status",
        written(
            "status",
            state=["finished"] * 2,
            step=[1] * 2,
            max_steps=[1] * 2,
            heartbeat=[1.0] * 2,
            pid=[None] * 2,
            process_start=[None] * 2,
            host=[None] * 2,
            error=[None] * 2,
            opened=[1] * 2,
        ),
        "do not fit together",
    ),
    "a status that is none": (
        "status",
        written(
            "status",
            state=["odd"],
            step=[1],
            max_steps=[1],
            heartbeat=[1.0],
            pid=[None],
            process_start=[None],
            host=[None],
            error=[None],
            opened=[1],
        ),
        "its state is unknown",
    ),
    "a name twice": (
        "signals",
        written("signals", id=[1, 2], name=["rank", "rank"], axis=["module"] * 2, unit=[""] * 2, width=[3, 3]),
        "do not fit together",
    ),
    "a signal wider than any": (
        "signals",
        written("signals", id=[1], name=["rank"], axis=["module"], unit=[""], width=[2**60]),
        "axis",
    ),
    "a count of a table that has none": ("sequences", written("sequences", name=["meta"], seq=[1]), "cannot be read"),
    "a vector over the limit": (
        "vectors",
        written("vectors", **VECTOR, data=[np.zeros(17 * 2**20, np.float32)]),
        "over the limit of dynlora",
    ),
    "numbers that are missing": ("vectors", written("vectors", **VECTOR, data=[[None, 1.0]]), "lacks numbers"),
    "a text over the limit": ("meta", written("meta", key=["x"], value=["x" * (4 * 2**20 + 1)]), "cannot be read"),
}


@pytest.mark.parametrize("case", list(TABLES))
def test_a_hostile_table_is_refused_and_leaves_nothing(case: str, there: Path, runs_dir: Path) -> None:
    table, make, message = TABLES[case]
    with_table(there, table, make)
    refused(there, runs_dir, message)


def test_a_small_file_that_unpacks_to_millions_of_rows_is_refused(
    there: Path, runs_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(whole_tables.MAX_ROWS, "system", 1000)
    many = written("system", time=[1.0] * 1001, name=["x"] * 1001, value=[0.0] * 1001)
    with_table(there, "system", many)
    refused(there, runs_dir, "1,001 rows, the limit is 1,000")
    monkeypatch.setattr(parquet_tables, "MAX_GROUP_BYTES", 1000)
    monkeypatch.setitem(whole_tables.MAX_ROWS, "system", 10_000)
    refused(there, runs_dir, "has row groups over 1,000 bytes")


def test_code_in_a_store_that_is_sent_along_never_travels(runs_dir: Path, tmp_path: Path) -> None:
    """A trigger in run.db is refused here, and what is fetched is a new store with our schema."""
    folder = finished_run(runs_dir)
    with sqlite3.connect(folder / "run.db") as connection:
        connection.execute("CREATE TRIGGER t AFTER INSERT ON meta BEGIN DELETE FROM meta; END")
    with pytest.raises(CorruptRunError, match="a schema that dynlora did not write"):
        push(folder, Place(str(tmp_path / "there")))


@pytest.mark.parametrize("name", ["config.yaml", "adapter/state.json", "notes.json"])
def test_a_link_in_a_run_is_not_sent(name: str, runs_dir: Path, tmp_path: Path) -> None:
    folder = finished_run(runs_dir)
    (tmp_path / "secret").write_text("secret", "utf-8")
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to(tmp_path / "secret")
    with pytest.raises(CorruptRunError, match="is a link or no regular file"):
        push(folder, Place(str(tmp_path / "there")))
    assert tree_of(tmp_path / "there") == []


@pytest.mark.parametrize(
    "url", ["", "zip://x.zip::file://y", "simplecache::s3://b/r", "file:///tmp/a\x00b", "file://nas/a", "a\nb"]
)
def test_an_address_that_is_none_is_one_sentence(url: str) -> None:
    with pytest.raises(ConfigError, match="is not the address of a folder"):
        Place(url)


@pytest.mark.parametrize("name", ["..", "con", "a b", ".hidden", "x" * 65])
def test_a_folder_that_is_named_like_no_run_is_no_run(name: str, there: Path, runs_dir: Path) -> None:
    from dynlora.remote.sync import run_ids

    if name != "..":
        (there / name).mkdir()
    assert run_ids(Place(str(there))) == ["a-run"]
    with pytest.raises(DynloraError):
        pull(Place(str(there)), name, runs_dir)


@pytest.mark.parametrize(
    "arguments",
    [
        ["push", "s3://me:hunter2@bucket/runs"],
        ["push", "s3://me:hunter2@bucket/runs", "s3://bucket/runs"],
        ["pull", "s3://bucket/runs", "https://me:hunter2@host/run"],
        ["show", "https://host/run?token=hunter2"],
        ["preflight", "--set", "data.path=https://me:hunter2@host/rows.csv"],
        ["sweep", "--on", "ray", "--address", "ray://me:hunter2@head:1"],
    ],
)
def test_no_command_that_refuses_an_address_shows_its_secret(arguments: list[str], runs_dir: Path) -> None:
    result = run(runs_dir, *arguments) if arguments[0] != "preflight" else CliRunner().invoke(main, arguments)
    assert result.exit_code == 2
    assert result.stderr.startswith("Error: ")
    assert "hunter2" not in result.output


def test_no_secret_of_an_address_is_shown_or_stored(runs_dir: Path, tmp_path: Path) -> None:
    place = Place(f"memory://me:hunter2@{tmp_path.name}/runs")
    assert "hunter2" not in place.address

    def fails(*_: Any, **__: Any) -> Any:
        raise ValueError("cannot log in as me with hunter2 at me:hunter2@host")

    push(finished_run(runs_dir, 20, "a-run"), place)
    pull(place, "a-run", tmp_path / "here")
    copy = tmp_path / "here" / "a-run"
    assert not any("hunter2" in path.read_text("utf-8", "replace") for path in copy.rglob("*") if path.is_file())
    place.fs = type("Failing", (), {"ls": fails, "invalidate_cache": lambda self: None})()
    with pytest.raises(DynloraError) as error:
        place.folders()
    assert "hunter2" not in str(error.value)
