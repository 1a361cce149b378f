"""A run folder from a stranger: what lies beside the database is a plain file of its own, or refused in a sentence."""

from __future__ import annotations

import json
import os
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from dynlora.cli.main import main
from dynlora.config_files import read_run_config, read_yaml, yaml_text
from dynlora.errors import ConfigError, CorruptRunError, DynloraError
from dynlora.inference.session import load_run

SECRET = "password: hunter2\n"


@pytest.fixture
def folder(trained_run: Path, runs_dir: Path) -> Path:
    """A finished run that the test may spoil, with one copy of its adapter."""
    copy = Path(shutil.copytree(trained_run, runs_dir / trained_run.name))
    shutil.rmtree(copy / "checkpoint")
    return copy


def linked(path: Path, target: Path) -> None:
    target.write_text(SECRET)
    path.unlink()
    path.symlink_to(target)


def piped(path: Path, _: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def with_lying_header(path: Path, _: Path) -> None:
    """Promise a tensor of a terabyte in a file of some bytes."""
    header = json.dumps({"a": {"dtype": "F32", "shape": [1 << 38], "data_offsets": [0, 1 << 40]}}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header)


def with_endless_header(path: Path, _: Path) -> None:
    path.write_bytes(struct.pack("<Q", 1 << 62) + b"{}")


def test_a_config_that_is_a_link_is_not_followed(folder: Path, tmp_path: Path) -> None:
    linked(folder / "config.yaml", tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match="is a link"):
        read_run_config(folder)
    for command in ("resume", "evaluate", "knockout"):
        done = CliRunner().invoke(main, [command, folder.name, "--runs-dir", str(folder.parent)])
        assert done.exit_code == 2, (command, done.output)
        assert "hunter2" not in done.output, command
        assert "Traceback" not in done.output, command


@pytest.mark.parametrize("file", ["state.json", "tensors.safetensors"])
@pytest.mark.parametrize("spoil", [linked, piped], ids=["link", "pipe"])
def test_an_adapter_that_is_a_link_or_a_pipe_is_not_followed(
    spoil: Callable[[Path, Path], None], file: str, folder: Path, tmp_path: Path
) -> None:
    spoil(folder / "adapter" / file, tmp_path / "elsewhere")
    with pytest.raises((CorruptRunError, ConfigError)) as caught:
        load_run(folder)
    assert "hunter2" not in str(caught.value)


def test_a_folder_of_an_adapter_that_is_a_link_is_not_followed(folder: Path, tmp_path: Path) -> None:
    shutil.move(folder / "adapter", tmp_path / "elsewhere")
    (folder / "adapter").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(CorruptRunError, match="link"):
        load_run(folder)


@pytest.mark.parametrize("spoil", [with_lying_header, with_endless_header])
def test_a_header_that_lies_is_refused_without_the_memory_it_asks_for(
    spoil: Callable[[Path, Path], None], folder: Path, tmp_path: Path
) -> None:
    spoil(folder / "adapter" / "tensors.safetensors", tmp_path)
    with pytest.raises(CorruptRunError):
        load_run(folder)


@pytest.mark.parametrize("section", ["model", "data"])
@pytest.mark.parametrize("place", ["../../../../etc", "..", "/proc/self", "~root", "a\x00b", "//host/share"])
def test_a_config_that_names_another_place_ends_in_a_sentence(place: str, section: str, folder: Path) -> None:
    values = read_yaml(folder / "config.yaml")
    values[section]["name" if section == "model" else "path"] = place
    (folder / "config.yaml").write_text(yaml_text(values))
    before = sorted(path.name for path in folder.parent.iterdir())
    with pytest.raises(DynloraError):
        load_run(folder) if section == "model" else _evaluated(folder)
    assert sorted(path.name for path in folder.parent.iterdir()) == before


def _evaluated(folder: Path) -> None:
    done = CliRunner().invoke(main, ["evaluate", folder.name, "--runs-dir", str(folder.parent)])
    assert done.exit_code == 2, done.output
    raise ConfigError(done.output)
