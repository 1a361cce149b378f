"""A run that goes on while a page shows it."""

from __future__ import annotations

from pathlib import Path

from dynlora.store.writer import RunWriter
from tests.viz.runs import config, define, record

RUN = "20260101-000000-00000009"
PLANNED = 400
"""Steps that it is going to take."""


class Running:
    """A run that takes steps when it is told to."""

    def __init__(self, runs_dir: Path) -> None:
        """Start it."""
        meta = {
            "name": "grows",
            "strategy": "dynamic",
            "model": "minilm",
            "data": "sentiment4",
            "seed": 0,
            "config": config("dynamic", 0),
            "labels": ["no", "yes"],
            "params": {"budget": 1152, "active": 1056, "allocated": 1600, "gate": 24, "head": 10},
        }
        self.folder = RunWriter.create(
            runs_dir, run_id=RUN, config_yaml="seed: 0\n", meta=meta, max_steps=PLANNED, state="running"
        )
        self.writer = RunWriter.open(self.folder, resume_from=None)
        define(self.writer, "grows", gates=True)
        self.step = -1

    def advance(self, to: int) -> None:
        """Take steps."""
        for step in range(self.step + 1, to + 1):
            record(self.writer, step, "grows", gates=True, seed=0)
        self.writer.commit()
        self.step = to
