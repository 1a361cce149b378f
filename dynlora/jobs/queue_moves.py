"""Which runs wait in the queue, in the order they start, and moving one of them."""

from __future__ import annotations

from contextlib import suppress

from dynlora.errors import ConfigError, DynloraError, storing
from dynlora.jobs import queue_order
from dynlora.jobs.queue import LOCK_WAIT_S, QUEUE_LOCK, is_pending, read_status
from dynlora.jobs.spawn import Folder, locked, runs_root
from dynlora.store import schema
from dynlora.store.active import active_ids


def in_line(runs_dir: Folder) -> list[str]:
    """Return the ids of the runs that wait for their start, the next one first; changes nothing."""
    root, found = runs_root(runs_dir), []
    for run_id in active_ids(root):
        with suppress(DynloraError):
            folder = schema.run_folder(root, run_id)
            if is_pending(folder):
                found.append((read_status(folder).heartbeat, run_id))
    return queue_order.in_order(root, [run_id for _, run_id in sorted(found)])


def move(runs_dir: Folder, run_id: str, where: str) -> tuple[int, int]:
    """Move a waiting run within the queue; a move beyond either end leaves it there.

    Args:
        runs_dir: folder of the runs.
        run_id: the run.
        where: one of `queue_order.MOVES`.

    Returns:
        Its position, 1 for the next, and the number of waiting runs.

    Raises:
        ConfigError: when there is no such move, or the run does not wait.
        RunNotFoundError: when there is no such run.
        RunBusyError: when another process has held the queue for half a minute.
        StorageError: when the disk does not take the order.
    """
    root = runs_root(runs_dir)
    schema.run_folder(root, run_id)
    with locked(root / QUEUE_LOCK, LOCK_WAIT_S):
        line = in_line(root)
        if run_id not in line:
            raise ConfigError(f"run {run_id}: does not wait in the queue; move a queued run that has not started")
        moved = queue_order.moved(line, run_id, where)
        with storing("the order of the queue"):
            queue_order.keep(root, moved)
    return moved.index(run_id) + 1, len(moved)
