"""A run that ends in the middle, as one whose process fails does."""

from __future__ import annotations

from pathlib import Path

import pytest

import dynlora
from dynlora.config import RunConfig
from dynlora.engine.loop.trainer import Trainer
from dynlora.training import run


def interrupted_run(config: RunConfig, runs_dir: Path, monkeypatch: pytest.MonkeyPatch, step: int = 6) -> Path:
    """Train until an error at a step, and return the folder of the run, the only one of `runs_dir`."""
    backward = Trainer._backward

    def interrupted(trainer: Trainer, order: object, index: int) -> object:
        if index == step:
            raise RuntimeError("interrupted")
        return backward(trainer, order, index)  # pyright: ignore[reportArgumentType]

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_backward", interrupted)
        with pytest.raises(run.RunFailedError):
            dynlora.train(config, runs_dir, progress=False)
    (folder,) = runs_dir.glob("2*")
    return folder
