"""Deleting a run moves it to `.trash/` inside its runs folder, from where it can be restored."""

from __future__ import annotations

import os
from itertools import chain, count
from pathlib import Path

from dynlora.errors import ConfigError, CorruptRunError, DynloraError, RunBusyError, RunNotFoundError
from dynlora.jobs.queue import LOCK_WAIT_S, QUEUE_LOCK, read_launch, read_status
from dynlora.jobs.spawn import Folder, locked, runs_root
from dynlora.store import schema
from dynlora.store.catalogue import run_folders
from dynlora.store.connection import LET_GO_S, lock_run
from dynlora.store.lifecycle import mark_active, unmark_active

TRASH_DIR = ".trash"
_LONGEST = 56
"""Characters of an id that are kept where a number follows: an id has 64 at most."""


def delete(runs_dir: Folder, run_id: str, *, is_replaced: bool = False) -> Path:
    """Move a run to the trash of its runs folder and return where it is now; `restore` brings it back.

    A run that cannot be read is moved too. Links are never followed.

    Args:
        runs_dir: folder of the runs.
        run_id: of the run.
        is_replaced: another state of the run takes its place, which may happen again and again: where the trash has a
            run of that id, it is kept there as `ID-2`, `ID-3` and so on.

    Raises:
        RunNotFoundError: when there is no such run.
        RunBusyError: when it is running or starting.
        CorruptRunError: when its folder or the trash is a link.
        ConfigError: when a run of that id lies in the trash, and it is not replaced.
    """
    root = runs_root(runs_dir)
    folder = schema.run_folder(root, run_id, must_exist=False)
    if folder.name not in {known.name for known in run_folders(root)}:  # a folder of another kind is left alone
        listing = schema.command_text("runs", runs_dir=root)
        raise RunNotFoundError(f"no run {run_id!r} in {root}: `{listing}` lists the runs")
    target = _trash(root) / run_id
    with locked(root / QUEUE_LOCK, LOCK_WAIT_S):
        if _is_busy(folder):
            raise RunBusyError(f"run {run_id} is running; stop it first")
        lock_run(folder, LET_GO_S).release()
        if is_replaced:
            target = _free(target)
        if os.path.lexists(target):
            raise ConfigError(f"run {run_id} is already in the trash; remove {target} first")
        target.parent.mkdir(exist_ok=True)
        folder.rename(target)
        unmark_active(root, run_id)
    return target


def restore(runs_dir: Folder, run_id: str) -> Path:
    """Bring a run back from the trash and return its folder; a queued one takes its place in the queue again.

    Raises:
        RunNotFoundError: when the trash holds no such run.
        CorruptRunError: when the trash or the folder in it is a link.
        ConfigError: when a run of that id is there again.
    """
    root = runs_root(runs_dir)
    target = schema.run_folder(root, run_id, must_exist=False)
    folder = schema.run_folder(_trash(root), run_id, must_exist=False)
    if not folder.is_dir():
        raise RunNotFoundError(f"no run {run_id!r} in the trash of {root}")
    with locked(root / QUEUE_LOCK, LOCK_WAIT_S):
        if os.path.lexists(target):
            raise ConfigError(f"run {run_id} cannot be restored: {root} has a run with this id")
        folder.rename(target)
        if _state(target) == "queued":
            mark_active(root, run_id)
    return target


def trashed(runs_dir: Folder) -> list[str]:
    """Return the ids in the trash, in order."""
    try:
        names = os.listdir(_trash(runs_root(runs_dir)))
    except OSError:
        return []
    return sorted(name for name in names if not name.startswith("."))


def _free(target: Path) -> Path:
    """Return a place in the trash that is not taken, its name an id that `restore` takes."""
    others = (target.with_name(f"{target.name[:_LONGEST]}-{number}") for number in count(2))
    return next(path for path in chain([target], others) if not os.path.lexists(path))


def _trash(root: Path) -> Path:
    trash = root / TRASH_DIR
    if trash.is_symlink():
        raise CorruptRunError(f"{trash} is a link to another place; dynlora does not follow it")
    return trash


def _state(folder: Path) -> str | None:
    try:
        return read_status(folder).status
    except DynloraError:
        return None


def _is_busy(folder: Path) -> bool:
    state = _state(folder)
    return state in ("running", "stopping") or (state == "queued" and read_launch(folder).is_alive)
