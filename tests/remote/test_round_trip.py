"""A run that was sent and fetched is the run: every row, every file, what is shown, loaded, exported and continued."""

from __future__ import annotations

import os
import shutil
import sqlite3
import threading
from pathlib import Path

import pandas as pd
import pytest

from dynlora.errors import ConfigError, CorruptRunError
from dynlora.jobs import launch
from dynlora.remote.contents import MANIFEST_NAME
from dynlora.remote.place import Place
from dynlora.remote.sync import KEEP_S, pull, push
from dynlora.store.lifecycle import annotate
from dynlora.store.measurements import KNOCKOUT_NAME
from dynlora.store.notes import NOTES_NAME, annotate_notes
from dynlora.store.reader import RunReader
from dynlora.store.run import open_run
from dynlora.store.writer import RunWriter
from tests.remote.places import files_of, rows_of
from tests.store.builder import define, finished_run, new_run, read_all, record
from tests.tiny import tiny_config
from tests.training.interrupted import interrupted_run

OF_HERE = ("folder", "heartbeat_age_s")


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """An empty folder of runs on this disk."""
    return Place(str(tmp_path / "there" / "runs"))


@pytest.fixture(params=["file", "memory"])
def any_place(request: pytest.FixtureRequest, place: Place, tmp_path: Path) -> Place:
    """An empty folder of runs on this disk, or reached as one elsewhere is."""
    return place if request.param == "file" else Place(f"memory://{tmp_path.name}/runs")


def contents(folder: Path) -> dict[str, object]:
    return {key: value for key, value in open_run(folder).summary.items() if key not in OF_HERE}


def test_a_fetched_run_is_the_run_that_was_sent(any_place: Place, runs_dir: Path, tmp_path: Path) -> None:
    folder = finished_run(runs_dir, 300)
    annotate_notes(folder, add=["paper"], note="the one")
    (folder / KNOCKOUT_NAME).write_text('{"format": 1}', "utf-8")
    (folder / "peft_adapter").mkdir()
    for name in ("adapter_config.json", "adapter_model.safetensors", "README.md"):
        (folder / "peft_adapter" / name).write_text(name, "utf-8")
    assert push(folder, any_place).status == "sent"
    assert pull(any_place, folder.name, tmp_path / "here").status == "fetched"
    copy = tmp_path / "here" / folder.name
    assert rows_of(copy, tmp_path / "a") == rows_of(folder, tmp_path / "b")
    assert files_of(copy) == files_of(folder)
    assert contents(copy) == contents(folder)
    for frame in ("modules",):
        pd.testing.assert_frame_equal(getattr(open_run(copy), frame), getattr(open_run(folder), frame))
    for ask in ("scalars", "events", "groups", "examples"):
        pd.testing.assert_frame_equal(getattr(open_run(copy), ask)(), getattr(open_run(folder), ask)())
    for signal in open_run(folder).signals():
        pd.testing.assert_frame_equal(open_run(copy).signal(signal), open_run(folder).signal(signal))
    read_all(copy)


def test_sent_and_fetched_twice_changes_nothing(any_place: Place, runs_dir: Path, tmp_path: Path, cache: Path) -> None:
    folder = finished_run(runs_dir)
    first = push(folder, any_place)
    manifest = any_place.below(folder.name).read(MANIFEST_NAME, 10**6)
    shutil.rmtree(cache)  # what it remembers of the first time is a convenience
    assert push(folder, any_place) == type(first)(first.id, "unchanged")
    assert push(folder, any_place).status == "unchanged"
    assert any_place.below(folder.name).read(MANIFEST_NAME, 10**6) == manifest
    assert pull(any_place, folder.name, tmp_path / "here").status == "fetched"
    assert pull(any_place, folder.name, tmp_path / "here").status == "unchanged"
    assert pull(any_place, folder.name, runs_dir).status == "unchanged", "it is the run that was sent"
    assert push(tmp_path / "here" / folder.name, any_place).status == "unchanged", "it was fetched from there"


def test_a_run_of_the_first_version_travels(place: Place, runs_dir: Path, tmp_path: Path) -> None:
    old = Path(__file__).parents[1] / "store" / "runs" / "schema-1"
    folder = Path(shutil.copytree(old, runs_dir / old.name))
    push(folder, place)
    pull(place, folder.name, tmp_path / "here")
    copy = tmp_path / "here" / folder.name
    assert rows_of(copy, tmp_path / "a") == rows_of(folder, tmp_path / "b")
    assert contents(copy) == contents(folder)


def test_a_live_run_is_sent_as_it_is_at_one_moment(any_place: Place, runs_dir: Path, tmp_path: Path) -> None:
    folder = new_run(runs_dir)
    stop, sent = threading.Event(), []
    with RunWriter.open(folder, resume_from=None) as writer:
        define(writer)
        record(writer, 1, 50)
        writer.commit()

        def train() -> None:
            step = 51
            while not stop.wait(0.001):
                record(writer, step, step)
                step += 1

        thread = threading.Thread(target=train)
        thread.start()
        for number in range(4):
            sent.append(push(folder, any_place))
            pull(any_place, folder.name, tmp_path / str(number))
            copy = tmp_path / str(number) / folder.name
            read_all(copy)
            with RunReader(copy) as reader:
                step, of = reader.status().step, reader.signal("importance")[0]
                assert reader.status().status == "interrupted", "no process trains the copy"
            assert of.tolist() == list(range(1, step + 1))
        stop.set()
        thread.join()
        writer.finish("finished")
    assert {one.status for one in sent} <= {"sent", "unchanged"}
    push(folder, any_place)
    assert pull(any_place, folder.name, tmp_path / "0").status == "updated"
    assert rows_of(tmp_path / "0" / folder.name, tmp_path / "a") == rows_of(folder, tmp_path / "b")


def test_only_what_changed_is_sent_again(place: Place, runs_dir: Path) -> None:
    folder = finished_run(runs_dir)
    first = push(folder, place)
    annotate_notes(folder, add=["new"])
    again = push(folder, place)
    assert (again.status, again.moved_bytes) == ("sent", (folder / NOTES_NAME).stat().st_size)
    assert first.moved_bytes > 100 * again.moved_bytes


def test_files_that_nobody_names_go_once_they_are_old(tmp_path: Path, runs_dir: Path) -> None:
    folder, place = finished_run(runs_dir), Place(str(tmp_path / "there"))
    push(folder, place)
    there = Path(place.root) / folder.name
    (there / "notes-0123456789abcdef.json").write_text("half", "utf-8")
    (there / "knockout-0123456789abcdef.json").write_text("half", "utf-8")
    others = ("mine.txt", "notes.json", "notes-0123456789abcdef.yaml", "tables/meta.parquet", "adapter/deep/state.json")
    for name in others:
        (there / name).parent.mkdir(parents=True, exist_ok=True)
        (there / name).write_text("somebody's", "utf-8")
    before = (there / MANIFEST_NAME).stat().st_mtime - KEEP_S - 60
    for name in ("notes-0123456789abcdef.json", *others):
        os.utime(there / name, (before, before))
    annotate_notes(folder, add=["new"])
    push(folder, place)
    assert not (there / "notes-0123456789abcdef.json").exists()
    assert (there / "knockout-0123456789abcdef.json").exists(), "somebody may be about to name it"
    assert all((there / name).exists() for name in others), "no push made these"


def test_a_damaged_run_is_not_sent(place: Place, runs_dir: Path) -> None:
    folder = finished_run(runs_dir)
    with sqlite3.connect(folder / "run.db") as connection:
        connection.execute("UPDATE vectors SET data = zeroblob(12) WHERE step = 7")
    with pytest.raises(CorruptRunError, match="damaged"):
        push(folder, place)
    assert place.sizes() == {}


def test_a_later_state_is_not_replaced_by_an_earlier_one(place: Place, runs_dir: Path, tmp_path: Path) -> None:
    folder = finished_run(runs_dir)
    earlier = Path(shutil.copytree(folder, tmp_path / "earlier" / folder.name))
    annotate(folder, state="stopped")
    push(folder, place)
    with pytest.raises(ConfigError, match="has a later state of the run; fetch that one, or add --force"):
        push(earlier, place)
    assert push(earlier, place, force=True).status == "sent"


def test_another_run_of_that_id_is_not_lost(place: Place, runs_dir: Path, tmp_path: Path) -> None:
    folder = finished_run(runs_dir, 40, "a-run")
    other = finished_run(tmp_path / "here", 20, "a-run")
    push(folder, place)
    with pytest.raises(ConfigError, match="has a run a-run of its own that differs; add --replace"):
        pull(place, "a-run", tmp_path / "here")
    assert pull(place, "a-run", tmp_path / "here", replace=True).status == "updated"
    assert len(open_run(other).signal("rank")) == 40
    assert launch.trashed(tmp_path / "here") == ["a-run"]
    for number in (1, 2):
        annotate_notes(other, note=f"mine {number}")
        annotate_notes(folder, note=f"theirs {number}")
        push(folder, place)
        assert pull(place, "a-run", tmp_path / "here", replace=True).status == "updated"
        assert f"theirs {number}" in (other / "notes.json").read_text("utf-8")
    assert launch.trashed(tmp_path / "here") == ["a-run", "a-run-2", "a-run-3"]
    assert "mine 2" in (launch.restore(tmp_path / "here", "a-run-3") / "notes.json").read_text("utf-8")


def test_a_touched_copy_is_not_overwritten(place: Place, runs_dir: Path, tmp_path: Path) -> None:
    folder = finished_run(runs_dir)
    push(folder, place)
    pull(place, folder.name, tmp_path / "here")
    copy = tmp_path / "here" / folder.name
    annotate_notes(copy, note="mine")
    annotate_notes(folder, note="theirs")
    push(folder, place)
    with pytest.raises(ConfigError, match="add --replace"):
        pull(place, folder.name, tmp_path / "here")
    assert "mine" in (copy / "notes.json").read_text("utf-8")


@pytest.mark.slow
def test_a_fetched_adapter_answers_exports_and_continues(stopped: Path, tmp_path: Path, place: Place) -> None:
    from dynlora.inference.export import export_run
    from dynlora.inference.session import load_run
    from dynlora.training import run

    whole = Path(shutil.copytree(stopped, tmp_path / "whole" / stopped.name))
    push(stopped, place)
    pull(place, stopped.name, tmp_path / "here")
    copy = tmp_path / "here" / stopped.name
    assert not (copy / "checkpoint").exists()
    texts = ["a great film", "the dull plot"]
    assert load_run(copy).answers(texts) == load_run(stopped).answers(texts), "the adapter of the last checkpoint"
    export_run(copy, tmp_path / "peft")
    with pytest.raises(ConfigError, match="was fetched from .* without a checkpoint; send it there again"):
        run.resume(copy.parent, copy.name)
    with pytest.raises(ConfigError, match="without a checkpoint"):
        launch.resume(copy.parent, copy.name)
    assert len(open_run(copy).events()) == len(open_run(stopped).events()), "a refusal deletes nothing"
    assert push(stopped, place, with_checkpoint=True).status == "sent"
    assert push(stopped, place).status == "unchanged", "as it was sent before"
    assert pull(place, stopped.name, tmp_path / "here").status == "updated"
    assert run.resume(copy.parent, copy.name).state == "finished"
    assert run.resume(whole.parent, whole.name).state == "finished"
    pd.testing.assert_frame_equal(open_run(copy).signal("importance"), open_run(whole).signal("importance"))
    tensors = ("adapter", "tensors.safetensors")
    assert copy.joinpath(*tensors).read_bytes() == whole.joinpath(*tensors).read_bytes()


@pytest.fixture
def stopped(tiny_bert: Path, tiny_data: Path, runs_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run of 12 steps that ended at step 6, after the checkpoint of step 4."""
    config = tiny_config(tiny_bert, tiny_data, train__steps=12, log__checkpoint_every=4, log__eval_every=20)
    return interrupted_run(config, runs_dir, monkeypatch)
