"""What finished runs said is kept beside them: used while it is true, ignored whatever else the file holds."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from dynlora.store import catalogue
from dynlora.store.writer import RunWriter
from tests.store.builder import finished_run, new_run


@pytest.fixture
def runs_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(catalogue, "SAVE_AFTER", 2)
    for name in ("one", "two"):
        finished_run(tmp_path, 30, name, name=name)
    return tmp_path


def anew(runs_dir: Path) -> dict[str, dict]:
    """List as a fresh process does."""
    catalogue._kept.clear()
    return {row["id"]: row for row in catalogue.run_rows(runs_dir)}


def test_a_fresh_process_opens_no_finished_run(runs_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = anew(runs_dir)
    assert (runs_dir / catalogue.LISTING_NAME).is_file()
    monkeypatch.setattr(catalogue, "_read", lambda _: pytest.fail("a finished run was opened again"))
    assert anew(runs_dir) == before
    assert before["one"]["trend"] == [0.01, 0.02, 0.03]
    assert before["one"]["trend_of"] == "accuracy"


def test_a_changed_a_moved_and_a_new_run_are_read(runs_dir: Path) -> None:
    anew(runs_dir)
    RunWriter.annotate(runs_dir / "one", meta={"name": "renamed"})
    shutil.rmtree(runs_dir / "two")
    finished_run(runs_dir, 5, "two", name="another")
    new_run(runs_dir, "three", "queued", name="waits")
    rows = anew(runs_dir)
    assert {run_id: row["name"] for run_id, row in rows.items()} == {
        "one": "renamed",
        "two": "another",
        "three": "waits",
    }
    assert rows["three"]["status"] == "queued"


def test_runs_that_can_change_are_never_kept(runs_dir: Path) -> None:
    anew(runs_dir)
    folder = new_run(runs_dir, "live")
    with RunWriter.open(folder, resume_from=None) as writer:
        writer.scalar("loss", "train", 1, 0.5)
        writer.progress(1)
        writer.commit()
        assert anew(runs_dir)["live"]["step"] == 1
        assert anew(runs_dir)["live"]["trend_of"] == "training loss"
        writer.progress(2)
        writer.commit()
        assert anew(runs_dir)["live"]["step"] == 2


WRONG = [
    "",
    '{"form": 1, "rows": {}}',
    '{"form": 2, "rows": {"one": 3, "two": [1, 2, 3]}}',
    '{"form": 2, "rows": {"one": ["v", {"status": "running"}, {}]}}',
]


@pytest.mark.parametrize("text", WRONG, ids=range(len(WRONG)))
def test_a_damaged_file_is_ignored(runs_dir: Path, text: str) -> None:
    before = anew(runs_dir)
    (runs_dir / catalogue.LISTING_NAME).write_text(text)
    assert anew(runs_dir) == before


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("step", "<b>"),
        ("max_steps", None),
        ("trend", 3),
        ("trend", ["x"]),
        ("trend", [1.0] * 5000),
        ("error", {}),
        ("status", "dancing"),
    ],
)
def test_a_row_with_a_value_no_run_gives_is_ignored(runs_dir: Path, key: str, value: object) -> None:
    before = anew(runs_dir)
    path = runs_dir / catalogue.LISTING_NAME
    document = json.loads(path.read_text())
    document["rows"]["one"][1][key] = value
    path.write_text(json.dumps(document))
    assert anew(runs_dir) == before


def test_a_link_is_neither_read_nor_written_through(runs_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    target = tmp_path_factory.mktemp("elsewhere") / "file"
    target.write_text("keep me")
    (runs_dir / catalogue.LISTING_NAME).symlink_to(target)
    assert set(anew(runs_dir)) == {"one", "two"}
    assert target.read_text() == "keep me"


def test_a_read_only_folder_is_listed(runs_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[str] = []

    def refuse(path: Path, _: str) -> None:
        tried.append(path.name)
        raise PermissionError(13, "Permission denied", str(path))

    (runs_dir / catalogue.LISTING_NAME).unlink(missing_ok=True)
    monkeypatch.setattr("dynlora.store.record.write_text", refuse)  # a mode would not keep root from writing
    assert set(anew(runs_dir)) == {"one", "two"}
    assert tried
