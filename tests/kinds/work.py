"""A run of any kind, made and worked on in this process: to its end, or killed and continued."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
from click.testing import CliRunner, Result

from dynlora import open_run
from dynlora.cli.main import main
from dynlora.engine.loop.checkpoint import read_checkpoint
from dynlora.jobs import quick_launch
from dynlora.kinds.run_kind import kind_of_run, registry
from dynlora.kinds.settings import KindSettings
from dynlora.store.reader import RunReader


class Killed(BaseException):
    """What stands for a process that is killed."""


def work(settings: KindSettings, runs_dir: Path) -> Any:
    """Make a run and return its outcome."""
    return registry()[settings.kind].resume(quick_launch.create(settings, runs_dir, "running"), is_new=True)


def check_equal(folder: Path, finished: Path) -> None:
    """Check that two runs hold the same adapter, results and numbers, and remove the first."""
    assert same(read_checkpoint(folder / "adapter"), read_checkpoint(finished / "adapter"))
    results = f"{kind_of_run(finished).name}_results"
    one, other = meta_of(folder)[results], meta_of(finished)[results]
    assert {**one, "id": ""} == {**other, "id": ""}
    ours, theirs = (open_run(path).scalars().sort_values(["name", "split", "step"]) for path in (folder, finished))
    assert ours["value"].tolist() == theirs["value"].tolist()
    assert not (folder / "checkpoint").exists()
    shutil.rmtree(folder)


def same(one: Any, other: Any) -> bool:
    """Say whether two saved states are equal, bit for bit."""
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


def meta_of(folder: Path) -> dict[str, Any]:
    """Return what the store says of a run."""
    with RunReader(folder) as reader:
        return reader.meta()


def command(runs: Path, *arguments: str) -> Result:
    """Return what a command answers about a folder of runs."""
    return CliRunner().invoke(main, [*arguments, "--runs-dir", str(runs)])
