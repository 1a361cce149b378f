"""MLflow: one database, or a server; steps are sent in batches, because each call is a transaction."""

from __future__ import annotations

import io
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlflow.entities import Metric, Param
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from PIL import Image

from dynlora.integrations.trackers.base import OURS, RunFacts, plain_name

MOST_METRICS = 1000
"""Most numbers of one call; MLflow takes no more."""

MOST_PARAMS = 100
"""Most settings of one call."""

LONGEST_PARAM = 6000
"""Most characters of a setting's value."""

STATUS = {"finished": "FINISHED", "failed": "FAILED", "stopped": "KILLED", "interrupted": "KILLED"}


class Mlflow:
    """Writes through MLflow's client; nothing of its is global, and no artifact but pictures is made."""

    def start(self, facts: RunFacts, config: Mapping[str, Any]) -> int | None:
        """Begin a run in the experiment, which is made when missing, or continue it; return its last step."""
        self._client = MlflowClient(facts.address)
        self._waiting: list[Metric] = []
        if facts.known is not None and (metrics := self._continued(facts.known)) is not None:
            return max((metric.step for metric in metrics), default=None)
        run = self._client.create_run(
            self._experiment(facts),
            start_time=round(1000 * facts.created),
            run_name=facts.name,
            tags={key: str(value) for key, value in config.items() if key.startswith(OURS)},
        )
        self.run = run.info.run_id
        params = [Param(key, str(value)[:LONGEST_PARAM]) for key, value in config.items() if not key.startswith(OURS)]
        for first in range(0, len(params), MOST_PARAMS):
            self._client.log_batch(self.run, params=params[first : first + MOST_PARAMS])
        return None

    def _continued(self, known: str) -> list[Metric] | None:
        """Set a run running again and return its last numbers; None where it is gone."""
        try:
            run = self._client.get_run(known)
        except MlflowException:
            return None
        self.run = known
        self._client.update_run(known, status="RUNNING")
        return run.data._metric_objs

    def _experiment(self, facts: RunFacts) -> str:
        """Return the id of the experiment; one that is made in a database keeps its pictures beside that."""
        experiment = self._client.get_experiment_by_name(facts.project)
        if experiment is not None:
            return experiment.experiment_id
        file = Path(facts.address.removeprefix("sqlite:///"))
        beside = str(file.parent / "artifacts") if facts.address.startswith("sqlite:///") else None
        return self._client.create_experiment(facts.project, artifact_location=beside)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Keep the numbers of a step for the next call; a call holds whole steps."""
        now = round(1000 * time.time())
        if len(self._waiting) + len(values) > MOST_METRICS:
            self.flush()
        self._waiting += [Metric(plain_name(name), value, now, step) for name, value in values.items()]

    def picture(self, step: int, name: str, png: bytes) -> None:
        """Log a picture of a step."""
        self._client.log_image(self.run, Image.open(io.BytesIO(png)), key=name, step=step)

    def flush(self) -> None:
        """Send what waits."""
        for first in range(0, len(self._waiting), MOST_METRICS):
            self._client.log_batch(self.run, metrics=self._waiting[first : first + MOST_METRICS])
        self._waiting = []

    def finish(self, status: str, ended: float) -> None:
        """End the run."""
        self.flush()
        self._client.set_terminated(self.run, STATUS[status], round(1000 * ended))
