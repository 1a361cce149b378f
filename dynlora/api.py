"""Three lines of Python: train a run, or attach a strategy to a training loop of one's own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dynlora.config import RunConfig, parse_config
from dynlora.config_files import with_run_folder
from dynlora.own_loop.attach import attach
from dynlora.own_loop.attached import Attached
from dynlora.store.run import Run, open_run

__all__ = ["Attached", "attach", "train"]


def train(config: RunConfig | Mapping[str, Any], runs_dir: str | Path = "runs", *, progress: bool = True) -> Run:
    """Train a run to its end and return it.

    Args:
        config: a `RunConfig`, or plain values such as {"strategy": {"name": "dynamic"}}.
        runs_dir: folder that holds the runs.
        progress: show a progress bar.

    Raises:
        DynloraError: when something the config names cannot be used, or the run fails.
    """
    from dynlora.training import run as training

    settings = with_run_folder(config if isinstance(config, RunConfig) else parse_config(config), Path(runs_dir))
    outcome = training.train(settings, Path(runs_dir), progress=progress)
    if outcome.state == "failed":
        raise training.RunFailedError(f"run {outcome.folder.name} failed: {outcome.error}")
    return open_run(outcome.folder)
