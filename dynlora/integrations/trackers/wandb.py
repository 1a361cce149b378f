"""Weights & Biases: a folder for each run and start, offline unless `WANDB_MODE` says otherwise."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import wandb
from PIL import Image

from dynlora.integrations.trackers.base import RunFacts


class Wandb:
    """Logs one row for each step; nothing of the machine, the code or the terminal is kept."""

    def start(self, facts: RunFacts, config: Mapping[str, Any]) -> int | None:
        """Begin the run, whose id is that of the run store; a resumed run is a further folder of the same id."""
        self.run = facts.id
        settings = wandb.Settings(
            console="off",
            silent=True,
            disable_git=True,
            disable_code=True,
            save_code=False,
            x_disable_meta=True,
            x_disable_stats=True,
            x_disable_machine_info=True,
            x_save_requirements=False,
            x_transaction_log_flush_interval=1.0,
        )
        self._run = wandb.init(
            project=facts.project,
            id=facts.id,
            name=facts.name,
            dir=facts.address,
            resume="allow",
            config=dict(config),
            settings=settings,
        )
        return facts.step

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Log the numbers of a step."""
        self._run.log(dict(values), step=step)

    def picture(self, step: int, name: str, png: bytes) -> None:
        """Log a picture of the step that was logged last."""
        self._run.log({name: wandb.Image(Image.open(io.BytesIO(png)))}, step=step)

    def flush(self) -> None:
        """Do nothing: the library's own process writes every second."""

    def finish(self, status: str, ended: float) -> None:
        """End the run."""
        self._run.finish(exit_code=0 if status == "finished" else 1)
