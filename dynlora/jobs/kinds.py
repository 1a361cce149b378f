"""Run folders of other kinds than training: made, and put into the same queue, without torch."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from dynlora.jobs.launch import RunHandle, launched_once
from dynlora.jobs.queue import put_in_queue, wake
from dynlora.jobs.spawn import Folder, runs_root
from dynlora.kinds.settings import KindSettings
from dynlora.store.lifecycle import create_run
from dynlora.store.schema import run_folder


def create(settings: KindSettings, runs_dir: Folder, state: str = "queued") -> Path:
    """Check settings, make the run folder at step 0 and return it.

    Args:
        settings: of the run.
        runs_dir: folder of the runs; made when missing.
        state: `queued`, or `running` where this process does the work itself.

    Raises:
        DynloraError: when something the settings name cannot be used, or the disk does not take the run.
    """
    root = runs_root(runs_dir, make=True)
    settings.check(root)
    return create_run(
        root, config_yaml=settings.to_yaml(), meta=settings.meta(root), max_steps=settings.steps(root), state=state
    )


def enqueue(settings: KindSettings, runs_dir: Folder, *, key: str) -> RunHandle:
    """Check settings, put the run into the queue and start the queue.

    Args:
        settings: of the run.
        runs_dir: folder of the runs; made when missing.
        key: idempotency key; a second call with the same key returns the run of the first.

    Raises:
        DynloraError: when the key or something the settings name cannot be used, or the disk does not take the run.
    """
    root = runs_root(runs_dir, make=True)
    run_id = launched_once(root, key, lambda _: put_in_queue(root, [partial(create, settings, root)])[0].name)
    wake(root)
    return RunHandle(run_id, run_folder(root, run_id, must_exist=False))
