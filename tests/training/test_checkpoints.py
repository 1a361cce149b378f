"""What is kept of a run when the disk will not take it: a warning and the state before, or a sentence at the end."""

from __future__ import annotations

import errno
import shutil
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError

from dynlora.engine.loop import checkpoint
from dynlora.engine.loop.checkpoint import read_checkpoint, write_checkpoint
from dynlora.jobs.spawn import locked
from dynlora.store.reader import RunReader
from dynlora.training import run
from tests.store.builder import new_run
from tests.tiny import tiny_config

Usage = namedtuple("Usage", "total used free")


def full(_: Any) -> Usage:
    """Say that nothing is free."""
    return Usage(100, 100, 0)


def test_room_is_looked_at_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_checkpoint(tmp_path / "checkpoint", {"step": 1})
    monkeypatch.setattr(shutil, "disk_usage", full)
    with pytest.raises(OSError, match="0.3 MB needed, 0.0 MB free") as error:
        write_checkpoint(tmp_path / "checkpoint", {"step": 2})
    assert error.value.errno == errno.ENOSPC
    assert read_checkpoint(tmp_path / "checkpoint") == {"step": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]


def test_a_checkpoint_without_room_is_a_warning_and_training_goes_on(
    tiny_bert: Path, tiny_data: Path, runs_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checks: list[int] = []

    def room_at_first_and_at_last(folder: Path, size: int) -> None:
        checks.append(size)
        if len(checks) in (4, 5):
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoint, "_check_room", room_at_first_and_at_last)
    outcome = run.train(tiny_config(tiny_bert, tiny_data, log__checkpoint_every=4), runs_dir)
    assert outcome.state == "finished"
    assert len(checks) > 5
    with RunReader(outcome.folder) as reader:
        warnings = [event.payload["message"] for event in reader.events() if event.kind == "warning"]
    assert len(warnings) == 2
    assert (
        "cannot be written (No space left on device); training continues, and the last one is still valid"
    ) in warnings[0]


def test_a_best_adapter_that_was_not_kept_is_not_named_the_best(
    tiny_bert: Path, tiny_data: Path, runs_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run said that its best step was one whose adapter the disk had refused."""
    kept: list[int] = []

    def refusing_later_ones(folder: Path, state: Any) -> None:
        if folder.name == "adapter-best":
            if kept:
                raise OSError(errno.ENOSPC, "No space left on device")
            kept.append(state["step"])
        write_checkpoint(folder, state)

    monkeypatch.setattr("dynlora.training.checkpoints.write_checkpoint", refusing_later_ones)
    monkeypatch.setattr("dynlora.tasks.base.Task.is_better", lambda *_: True)
    outcome = run.train(tiny_config(tiny_bert, tiny_data), runs_dir)
    assert outcome.state == "finished"
    with RunReader(outcome.folder) as reader:
        assert reader.meta(["best"])["best"]["step"] == kept[0]
        warnings = [event.payload["message"] for event in reader.events(kinds=["warning"])]
    assert any("the adapter best of step" in words for words in warnings)
    assert read_checkpoint(outcome.folder / "adapter-best")["step"] == kept[0]


def test_a_busy_queue_does_not_hide_how_a_run_ended(
    tiny_bert: Path, tiny_data: Path, runs_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A finished run, or the error it really ended in, became "has been busy for 30 s"."""
    new_run(runs_dir, "waiting", "queued")
    monkeypatch.setattr("dynlora.jobs.queue.LOCK_WAIT_S", 0.1)
    with locked(runs_dir / ".queue.lock", 1.0):
        outcome = run.train(tiny_config(tiny_bert, tiny_data), runs_dir)
    assert outcome.state == "finished"


def test_an_end_that_cannot_be_kept_is_a_sentence_and_can_be_resumed(
    tiny_bert: Path, tiny_data: Path, runs_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:

        def no_room_for_the_adapter(folder: Path, state: Any) -> None:
            if folder.name == "adapter":
                raise OSError(errno.ENOSPC, "No space left on device")
            write_checkpoint(folder, state)

        patch.setattr("dynlora.training.checkpoints.write_checkpoint", no_room_for_the_adapter)
        outcome = run.train(tiny_config(tiny_bert, tiny_data), runs_dir)
    assert outcome.state == "failed"
    assert outcome.error is not None
    assert f"free some space, then dynlora resume {outcome.folder.name}" in outcome.error
    assert run.resume(runs_dir, outcome.folder.name).state == "finished"
    assert (outcome.folder / "adapter" / "state.json").is_file()


def test_an_error_of_safetensors_own_is_one_of_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`save_file` says SafetensorError where the disk is full or the folder went away while it wrote."""
    write_checkpoint(tmp_path / "checkpoint", {"step": 1, "a": torch.zeros(2)})

    def refused(tensors: Any, path: Path) -> None:
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(checkpoint, "save_file", refused)
    with pytest.raises(OSError, match="No space left on device"):
        write_checkpoint(tmp_path / "checkpoint", {"step": 2, "a": torch.zeros(2)})
    assert read_checkpoint(tmp_path / "checkpoint")["step"] == 1
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]


def test_a_folder_that_is_removed_does_not_come_back(
    tiny_bert: Path, tiny_data: Path, runs_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def removing(folder: Path, state: Any) -> None:
        if state["step"] == 10:
            shutil.rmtree(folder.parent)
        write_checkpoint(folder, state)

    monkeypatch.setattr("dynlora.training.checkpoints.write_checkpoint", removing)
    outcome = run.train(tiny_config(tiny_bert, tiny_data), runs_dir)
    assert outcome.state == "failed"
    assert outcome.error is not None
    assert "its folder was moved or removed during training" in outcome.error
    assert not outcome.folder.exists()


def test_a_runs_folder_that_is_moved_is_named_with_the_remedy(
    tiny_bert: Path, tiny_data: Path, runs_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def moving(folder: Path, state: Any) -> None:
        if state["step"] == 10:
            folder.parent.parent.rename(f"{folder.parent.parent}-moved")
        write_checkpoint(folder, state)

    monkeypatch.setattr("dynlora.training.checkpoints.write_checkpoint", moving)
    outcome = run.train(tiny_config(tiny_bert, tiny_data), runs_dir)
    assert outcome.error is not None
    assert f"the runs folder {runs_dir} was moved or removed during training; move it back, then" in outcome.error
    assert f"dynlora resume {outcome.folder.name}" in outcome.error


def test_a_folder_that_is_renamed_is_named_and_the_run_goes_on_once_it_is_back(
    tiny_bert: Path, tiny_data: Path, runs_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def renaming(folder: Path, state: Any) -> None:
        if state["step"] == 10 and folder.parent.exists():
            folder.parent.rename(folder.parent.with_name("mine"))
        write_checkpoint(folder, state)

    with monkeypatch.context() as patched:
        patched.setattr("dynlora.training.checkpoints.write_checkpoint", renaming)
        outcome = run.train(tiny_config(tiny_bert, tiny_data), runs_dir)
    name = outcome.folder.name
    assert outcome.state == "failed"
    assert f"its folder was renamed to mine during training; rename it back to {name}" in str(outcome.error)
    (runs_dir / "mine").rename(outcome.folder)
    assert run.resume(runs_dir, name).state == "finished"
