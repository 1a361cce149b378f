"""Checkpoints: what was written is read, what is torn is noticed, and the one before it is taken where it is there."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from dynlora.engine.loop.checkpoint import check_started, read_checkpoint, write_checkpoint
from dynlora.errors import CorruptRunError


def state(step: int) -> dict[str, object]:
    """Return a state whose tensors tell its step."""
    return {"step": step, "weights": {"a": torch.full((3, 2), float(step))}, "rows": [torch.arange(step)]}


def test_what_was_written_is_read(tmp_path: Path) -> None:
    for step in (4, 8):
        write_checkpoint(tmp_path / "checkpoint", state(step))
        checkpoint = read_checkpoint(tmp_path / "checkpoint")
        assert checkpoint["step"] == step
        assert torch.equal(checkpoint["weights"]["a"], torch.full((3, 2), float(step)))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint"]


def test_files_of_two_moments_are_no_checkpoint(tmp_path: Path) -> None:
    """A copy that met a checkpoint while it was replaced was gone on with from another step's weights."""
    for step in (4, 8):
        write_checkpoint(tmp_path / str(step), state(step))
    shutil.copy(tmp_path / "4" / "tensors.safetensors", tmp_path / "8" / "tensors.safetensors")
    with pytest.raises(CorruptRunError, match="files are from different times"):
        read_checkpoint(tmp_path / "8")
    (tmp_path / "4").rename(tmp_path / ".8.old")
    assert read_checkpoint(tmp_path / "8")["step"] == 4
    (tmp_path / "8" / "tensors.safetensors").unlink()
    assert read_checkpoint(tmp_path / "8")["step"] == 4


@pytest.mark.parametrize("content", ["[1]", "3", "null", '"text"'])
def test_a_state_of_another_shape_is_refused(content: str, tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "checkpoint", state(4))
    (tmp_path / "checkpoint" / "state.json").write_text(content)
    with pytest.raises(CorruptRunError, match=r"state.json: is not a state that dynlora wrote; restore it"):
        read_checkpoint(tmp_path / "checkpoint")


def test_a_checkpoint_without_a_state_is_not_none(tmp_path: Path) -> None:
    """A run would begin at step 0 where it should continue."""
    check_started(tmp_path / "checkpoint")
    write_checkpoint(tmp_path / "checkpoint", state(4))
    check_started(tmp_path / "checkpoint")
    (tmp_path / "checkpoint" / "state.json").unlink()
    with pytest.raises(CorruptRunError, match=r"holds no state.json; restore it"):
        check_started(tmp_path / "checkpoint")
    (tmp_path / "checkpoint" / "state.json").mkdir()
    with pytest.raises(CorruptRunError, match="not a regular file"):
        read_checkpoint(tmp_path / "checkpoint")


def test_a_checkpoint_of_an_earlier_version_has_no_digest_and_is_read(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "checkpoint", state(4))
    path = tmp_path / "checkpoint" / "state.json"
    content = json.loads(path.read_text())
    assert len(content.pop("tensors")) == 64
    path.write_text(json.dumps(content))
    assert read_checkpoint(tmp_path / "checkpoint")["step"] == 4
