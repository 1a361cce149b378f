"""Aim: one repository; runs are known by a hash that Aim chooses."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from PIL import Image

from dynlora.integrations.trackers.base import RUN_KEY, RunFacts

aim: Any = import_module("aim")
_indexes: Any = import_module("aim.sdk.index_manager").RepoIndexManager


class Aim:
    """Tracks numbers and pictures without readings of the machine or a copy of the terminal."""

    def start(self, facts: RunFacts, config: Mapping[str, Any]) -> int | None:
        """Begin a run in the repository, which is made when missing, or continue it; return its last step."""
        repo = aim.Repo.from_path(facts.address, init=True)
        known = facts.known if facts.known is not None and repo.run_exists(facts.known) else None
        self._run = aim.Run(
            known,
            repo=repo,
            experiment=facts.project,
            force_resume=known is not None,
            system_tracking_interval=None,
            log_system_params=False,
            capture_terminal_logs=False,
        )
        self.run = self._run.hash
        if known is not None:
            return max((int(metric.last_step()) for metric in self._run.metrics()), default=None)
        self._run.name = facts.name
        self._run["hparams"] = {key: value if value is not None else "" for key, value in config.items()}
        self._run["dynlora"] = {RUN_KEY: facts.id}
        return None

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Track the numbers of a step."""
        self._run.track({name: value for name, value in values.items() if math.isfinite(value)}, step=step)

    def picture(self, step: int, name: str, png: bytes) -> None:
        """Track a picture."""
        self._run.track(aim.Image(Image.open(io.BytesIO(png))), name=name, step=step)

    def flush(self) -> None:
        """Do nothing: each number is written when it is tracked."""

    def finish(self, status: str, ended: float) -> None:
        """End the run, and index it: Aim shows no run before."""
        self._run["dynlora", "status"] = status
        self._run.report_successful_finish() if status == "finished" else None
        self._run.close()
        _indexes.get_index_manager(self._run.repo).index(self._run.hash)
