"""Trackio: one database for each project; runs are known by their names, pictures are files beside it."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import trackio
from PIL import Image
from trackio.sqlite_storage import SQLiteStorage

from dynlora.integrations.trackers.base import RunFacts


class Trackio:
    """Logs one row for each step through Trackio's own run, without readings of the machine."""

    def start(self, facts: RunFacts, config: Mapping[str, Any]) -> int | None:
        """Begin the run of this name, or continue it; return its last step."""
        self.run = facts.unique_name
        last = SQLiteStorage.get_max_step_for_run(facts.project, self.run)
        self._run = trackio.init(
            project=facts.project,
            name=self.run,
            config=dict(config),
            resume="allow",
            embed=False,
            auto_log_cpu=False,
            auto_log_gpu=False,
        )
        return last

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Log the numbers of a step."""
        self._run.log(dict(values), step=step)

    def picture(self, step: int, name: str, png: bytes) -> None:
        """Log a picture."""
        self._run.log({name: trackio.Image(Image.open(io.BytesIO(png)))}, step=step)

    def flush(self) -> None:
        """Do nothing: Trackio's thread writes twice a second."""

    def finish(self, status: str, ended: float) -> None:
        """Wait until all is written; Trackio does not know how a run ended."""
        self._run.finish()
