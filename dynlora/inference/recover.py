"""A run of a few steps that starts from a compressed adapter, put into the queue."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from dynlora.config import parse_config
from dynlora.inference.compress import Compression, write_size
from dynlora.jobs import launch
from dynlora.jobs.export import is_kept, recovery_name, recovery_values, start_folder
from dynlora.jobs.queue import put_in_queue
from dynlora.store import queries
from dynlora.store.compressions import Compressed, Size
from dynlora.training.plan import plan


def queue_recovery(
    subject: Compression, compressed: Compressed, size: Size, steps: int, *, run: Path | None, name: str, runs_dir: Path
) -> dict[str, Any]:
    """Keep one size of an adapter in the runs folder, and queue a run that starts from it.

    Args:
        subject: the adapter.
        compressed: its measured sizes.
        size: one of them.
        steps: optimizer steps to train.
        run: folder of the run that it comes from; None for an adapter brought along.
        name: of that run's folder, or of the adapter's.
        runs_dir: folder of the runs.

    Returns:
        id, status and steps of the new run, and the folder that it starts from.

    Raises:
        DynloraError: when the adapter cannot be written, or the run cannot be trained; no run is made then.
    """
    start = start_folder(runs_dir, name, compressed, size)
    if not is_kept(start):
        write_size(subject, start, size, run=run, which=compressed.which, name=name)
    title = name if run is None else queries.run_summary(run)["name"]
    called = recovery_name(title, size.parameters / compressed.parameters, steps)
    planned = plan(parse_config(recovery_values(subject.config.model_dump(mode="json"), start, steps, called)))
    (folder,) = put_in_queue(runs_dir, [partial(planned.create, runs_dir, "queued")])
    launch.wake(runs_dir)
    return {"id": folder.name, "status": "queued", "steps": steps, "start_from": str(start)}
