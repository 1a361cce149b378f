"""Small runs for the tests of the store, written through the writer, and what must be read of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from dynlora.errors import CorruptRunError
from dynlora.store.reader import RunReader
from dynlora.store.schema import ModuleRow
from dynlora.store.summary import run_summary
from dynlora.store.writer import Recording, RunWriter

WIDTH = 3
CONFIG = {"seed": 1, "strategy": {"name": "dynamic"}}
META = {"name": "a", "strategy": "dynamic", "model": "minilm", "data": "sentiment4", "seed": 1, "config": CONFIG}
SUMMARY_KEYS = (
    "id",
    "name",
    "status",
    "strategy",
    "model",
    "model_path",
    "data",
    "seed",
    "step",
    "max_steps",
    "metrics",
    "best",
    "params",
    "ranks",
    "time",
    "config",
)
"""Keys of a summary, in their order: what `train` and `show --json` begin with."""


def new_run(runs_dir: Path, run_id: str | None = None, state: str = "running", **meta: object) -> Path:
    """Make a run folder with nothing recorded."""
    return RunWriter.create(
        runs_dir, run_id=run_id, config_yaml="seed: 1\n", meta={**META, **meta}, max_steps=100, state=state
    )


def values(step: int) -> np.ndarray:
    """Return the importance vector of a step; a pure function, so that any test can say what is right."""
    return np.random.default_rng(step).standard_normal(WIDTH).astype(np.float32)


def define(writer: Recording) -> None:
    """Announce modules, groups, probe set and signals."""
    writer.define_modules([ModuleRow(f"encoder.{i}.query", i, "query", 8, 8, 4) for i in range(WIDTH)])
    writer.define_groups(["short", "long"])
    writer.define_examples([{"text": f"text {i}", "label": "yes", "group": "short", "x": i, "y": -i} for i in range(4)])
    writer.define_signal("importance", "module", "", WIDTH)
    writer.define_signal("rank", "module", "components", WIDTH)
    writer.define_signal("group_gate", "group", "", 2 * WIDTH)
    writer.define_signal("probe_loss", "example", "nats", 4)


def record(writer: Recording, first: int, last: int) -> None:
    """Record steps first..last."""
    for step in range(first, last + 1):
        writer.vector("importance", step, values(step))
        writer.vector("rank", step, [4, step % 5, 2])
        writer.scalar("loss", "train", step, 1 / (step + 1))
        if step % 10 == 0:
            writer.scalar("accuracy", "validation", step, step / 1000)
            writer.vector("group_gate", step, np.arange(6) + step)
            writer.vector("probe_loss", step, np.arange(4) * step)
            move = {"edit": "move", "donor": 0, "receiver": 2, "count": 1, "donor_score": 0.5, "receiver_score": 2}
            writer.event(step, "reallocate", [0, 2], {"edits": [move], "budget": 96, "budget_used": 96})
        writer.progress(step)


def finished_run(runs_dir: Path, steps: int = 40, run_id: str | None = None, **meta: object) -> Path:
    """Make a finished run."""
    folder = new_run(runs_dir, run_id, "running", **meta)
    with RunWriter.open(folder, resume_from=None) as writer:
        define(writer)
        record(writer, 1, steps)
        writer.finish("finished")
    return folder


def read_all(folder: Path) -> None:
    """Read everything and check that what is returned is right where it can be known."""
    with RunReader(folder) as reader:
        for read in (reader.meta, reader.status, reader.version_key, reader.groups, reader.logs, reader.system):
            read()
        for read in (reader.examples, reader.modules):
            read()
        series = {(row.name, row.split): row for row in reader.scalars()}
        if set(series) != {("loss", "train"), ("accuracy", "validation")}:
            raise CorruptRunError("a name or a split was changed")
        loss, accuracy, events = series["loss", "train"], series["accuracy", "validation"], reader.events()
        reader.scalars(max_points=12)
        if "importance" not in reader.signals():
            raise CorruptRunError("its name was changed")
        steps, rows = reader.signal("importance")
        reader.bins("importance", 4)
    for step, row in zip(steps, rows, strict=True):
        np.testing.assert_array_equal(row, values(int(step)))
    np.testing.assert_array_equal(loss.values, 1 / (loss.steps + 1))
    np.testing.assert_array_equal(accuracy.values, accuracy.steps / 1000)
    for event in events:
        assert (event.kind, event.modules, event.step % 10) == ("reallocate", [0, 2], 0)
        assert (event.payload["budget"], event.payload["budget_used"]) == (96, 96)
    run_summary(folder)
