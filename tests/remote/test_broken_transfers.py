"""A transfer that breaks at any operation leaves the run as it was before, here and there, and can be done again."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dynlora.errors import RemoteError, StorageError
from dynlora.remote import sync
from dynlora.remote.place import Place
from dynlora.remote.sync import pull, push, read_manifest
from dynlora.store.notes import annotate_notes
from dynlora.store.run import open_run
from tests.remote.places import breaking, rows_of, tree_of
from tests.store.builder import finished_run

steps = pytest.mark.parametrize(
    "step", [pytest.param(3, id="every third"), pytest.param(1, id="each", marks=pytest.mark.torture)]
)
"""Which operations break, one in each try: every third of them, and each in `make torture`."""

MOST = 200
"""Operations of one transfer, at most; the tests find how many there are."""


def is_whole(there: Path, here: Path, steps: set[int]) -> None:
    """Check that what can be fetched from a place is one of the whole states that were sent."""
    pull(Place(str(there)), "a-run", here)
    assert len(open_run(here / "a-run").signal("importance")) in steps


@steps
def test_a_first_push_that_breaks_anywhere_is_not_there_or_whole(step: int, runs_dir: Path, tmp_path: Path) -> None:
    folder = finished_run(runs_dir, 20, "a-run")
    for at in range(0, MOST, step):
        there = tmp_path / f"there-{at}"
        place, disk = breaking(there, at, half=True)
        try:
            push(folder, place)
            whole = True
        except RemoteError:
            assert read_manifest(Place(str(there)), "a-run") is None, "nobody is told of a run that is not there whole"
            whole = False
        broke = disk.count > at
        assert push(folder, Place(str(there))).status == ("unchanged" if whole else "sent")
        is_whole(there, tmp_path / f"here-{at}", {20})
        if not broke:
            break
    assert 30 < at < MOST, "every operation broke once"


@steps
def test_a_second_push_that_breaks_anywhere_leaves_the_old_run(step: int, runs_dir: Path, tmp_path: Path) -> None:
    old = finished_run(tmp_path / "old", 20, "a-run")
    new = finished_run(tmp_path / "new", 40, "a-run")
    for at in range(0, MOST, step):
        there = tmp_path / f"there-{at}"
        push(old, Place(str(there)))
        place, disk = breaking(there, at, half=True)
        try:
            push(new, place, force=True)
        except RemoteError:
            is_whole(there, tmp_path / f"first-{at}", {20})
        push(new, Place(str(there)), force=True)
        is_whole(there, tmp_path / f"then-{at}", {40})
        if disk.count <= at:
            break
    assert 10 < at < MOST


def test_a_pull_that_breaks_anywhere_leaves_nothing(runs_dir: Path, tmp_path: Path) -> None:
    folder = finished_run(runs_dir, 20, "a-run")
    push(folder, Place(str(tmp_path / "there")))
    here = tmp_path / "here"
    for at in range(MOST):
        place, disk = breaking(tmp_path / "there", at)
        try:
            pull(place, "a-run", here)
        except RemoteError:
            assert tree_of(here) == []
        if disk.count <= at:
            break
    assert 10 < at < MOST
    assert rows_of(here / "a-run", tmp_path / "a") == rows_of(folder, tmp_path / "b")


def test_an_update_that_breaks_anywhere_leaves_the_copy_of_before(runs_dir: Path, tmp_path: Path) -> None:
    folder = finished_run(runs_dir, 20, "a-run")
    push(folder, Place(str(tmp_path / "there")))
    pull(Place(str(tmp_path / "there")), "a-run", tmp_path / "here")
    copy = tmp_path / "here" / "a-run"
    before, rows = tree_of(tmp_path / "here"), rows_of(copy, tmp_path / "rows")
    annotate_notes(folder, add=["new"])
    push(folder, Place(str(tmp_path / "there")))
    for at in range(MOST):
        place, disk = breaking(tmp_path / "there", at)
        try:
            assert pull(place, "a-run", tmp_path / "here").status == "updated"
        except RemoteError:
            assert tree_of(tmp_path / "here") == before
            assert rows_of(copy, tmp_path / f"rows-{at}") == rows
        if disk.count <= at:
            break
    assert (copy / "notes.json").exists()


ROOT = Path(__file__).resolve().parents[2]
PUSH = """
push(Path(sys.argv[1]), breaking(Path(sys.argv[2]), int(sys.argv[3]), half=True, die=lambda: os._exit(9))[0])
"""
PULL = """
pull(breaking(Path(sys.argv[1]), int(sys.argv[3]), die=lambda: os._exit(9))[0], "a-run", Path(sys.argv[2]))
"""
IMPORTS = """
import os, sys
from pathlib import Path
from dynlora.remote.sync import pull
from dynlora.remote.sync import push
from tests.remote.places import breaking
"""


def dies_in(program: str, first: Path, second: Path, at: int) -> bool:
    """Run a transfer in a process that ends at an operation, as one that is killed does; say whether it did."""
    command = [sys.executable, "-c", IMPORTS + program, str(first), str(second), str(at)]
    return subprocess.run(command, cwd=ROOT, check=False).returncode == 9


@pytest.mark.journey
@pytest.mark.slow
def test_a_killed_process_leaves_no_half_run_on_either_side(runs_dir: Path, tmp_path: Path) -> None:
    folder = finished_run(runs_dir, 20, "a-run")
    there, here = tmp_path / "there", tmp_path / "here"
    for at in (1, 20, 36):
        assert dies_in(PUSH, folder, tmp_path / f"there-{at}", at)
        assert read_manifest(Place(str(tmp_path / f"there-{at}")), "a-run") is None
        assert push(folder, Place(str(tmp_path / f"there-{at}"))).status == "sent"
    assert push(folder, Place(str(there))).status == "sent"
    for at in (1, 12):
        assert dies_in(PULL, there, here, at)
        assert not (here / "a-run").exists()
        assert [name for name in os.listdir(here) if not name.startswith(sync.ASIDE)] == []
    assert pull(Place(str(there)), "a-run", here).status == "fetched"


def test_a_full_disk_is_one_sentence(runs_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = finished_run(runs_dir, 20, "a-run")
    push(folder, Place(str(tmp_path / "there")))
    monkeypatch.setattr(sync, "_ROOM", 10**12)
    with pytest.raises(StorageError, match="are fetched, .* are free; make room"):
        pull(Place(str(tmp_path / "there")), "a-run", tmp_path / "here")
    assert tree_of(tmp_path / "here") == []


def test_a_run_that_is_sent_again_while_it_is_fetched_is_fetched_as_it_is_then(
    runs_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = finished_run(runs_dir, 20, "a-run")
    annotate_notes(folder, note="old")
    there = Place(str(tmp_path / "there"))
    push(folder, there)
    (old,) = (tmp_path / "there" / "a-run").glob("notes-*.json")
    fetch = Place.fetch

    def meanwhile(place: Place, name: str, target: Path, size: int, sha256: str) -> None:
        if old.exists():
            annotate_notes(folder, note="new")
            push(folder, there)
            old.unlink()  # as cleaning up removes it, later
        fetch(place, name, target, size, sha256)

    monkeypatch.setattr(Place, "fetch", meanwhile)
    pull(there, "a-run", tmp_path / "here")
    copy = tmp_path / "here" / "a-run"
    assert "new" in (copy / "notes.json").read_text("utf-8")
    assert tree_of(tmp_path / "here")[0] == "a-run"
