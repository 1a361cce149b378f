"""The queue of a runs folder: one run trains at a time, the oldest queued one is next unless others were moved up.

The queue has no server, and no file but that of the moves: a queued run is a run folder at step 0 (or at a checkpoint),
and whoever finishes or reads starts the next one under the folder's lock. A run that the file of moves does not name
comes after those it names; names of runs that wait no longer are left out when it is written again.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from itertools import chain, count
from pathlib import Path
from typing import ClassVar

from dynlora.errors import ConfigError, CorruptRunError, DynloraError, RunBusyError, RunNotFoundError, storing
from dynlora.jobs import warm
from dynlora.jobs.environment import python_command
from dynlora.jobs.spawn import Folder, adopt, check_log, end_child, locked, reap, runs_root, spawn_detached
from dynlora.safe_files import making_folder, tail
from dynlora.store import lifecycle, schema
from dynlora.store.catalogue import run_folders
from dynlora.store.connection import LET_GO_S, lock_run
from dynlora.store.lifecycle import ACTIVE_DIR, active_ids, annotate, mark_active, unmark_active
from dynlora.store.reader import RunReader
from dynlora.store.record import Moment, Record, Row, Whole
from dynlora.store.rows import Status

OPEN = ("queued", "running", "stopping")
"""States of a run that is not over."""

LAUNCH_NAME = "launch.json"
LOG_NAME = "train.log"
QUEUE_LOCK = ".queue.lock"
LOCK_WAIT_S = 30.0
FOREIGN_GONE_S = 600.0
"""Silence, seconds, after which a run on another machine no longer holds up the queue."""

_MARK_GRACE_S = 60.0


ORDER_NAME = ".queue-order.json"

MOVES: Mapping[str, Callable[[int, int], int]] = {
    "first": lambda place, last: 0,
    "up": lambda place, last: max(0, place - 1),
    "down": lambda place, last: min(last, place + 1),
    "last": lambda place, last: last,
}
"""Where a run can be moved to: from its place, counted from 0, and the last place, its new one."""


class QueueOrder(Record):
    """Ids of waiting runs, the next first."""

    MAX_BYTES: ClassVar[int] = 2**20
    KEEPS_REST: ClassVar[bool] = True

    order: Row[str] = ()


class Launch(Record):
    """The process started for a run: its pid, start (seconds since the epoch) and the run's count of openings."""

    KEEPS_REST: ClassVar[bool] = True

    pid: Whole | None = None
    start_time: Moment | None = None
    opened: Whole | None = None

    @property
    def is_alive(self) -> bool:
        """Whether that process lives."""
        return lifecycle.is_alive(self.pid, self.start_time)


def resume_command(run_id: str, runs_dir: Path) -> list[str]:
    """Return the command that trains a run from its last checkpoint, or from the start."""
    return python_command("dynlora", "resume", run_id, "--runs-dir", str(runs_dir))


def read_status(folder: Path) -> Status:
    """Return where a run stands.

    Raises:
        RunNotFoundError: when there is no such run.
        CorruptRunError: when it cannot be read.
    """
    with RunReader(folder) as reader:
        return reader.status()


def read_launch(folder: Path) -> Launch:
    """Return the process that was started for a run; all None when there was none.

    The file is written before the process is started and again after. Whoever died in between named no process: the one
    that runs the run's command is it; without one there is a count of openings and no pid.
    """
    launch = Launch.read(folder / LAUNCH_NAME) or Launch()
    if launch.opened is not None and launch.pid is None:
        pid, start = lifecycle.find(resume_command(folder.name, folder.parent)) or (None, None)
        return Launch(pid=pid, start_time=start, opened=launch.opened)
    return launch


def put_in_queue(runs_dir: Folder, makers: Sequence[Callable[[], Path]]) -> list[Path]:
    """Make queued runs while this process holds the queue, all or none, and return their folders.

    A queue that cannot be used is refused before anything is made. `wake` starts the next one afterwards.

    Args:
        runs_dir: folder of the runs; made when missing.
        makers: each makes a checked run in that folder and returns its own.

    Raises:
        RunBusyError: when another process has held the queue for half a minute.
        CorruptRunError: when its lock is no plain file.
        DynloraError: when a run cannot be made.
    """
    root, made = Path(os.path.realpath(runs_dir)), list[Path]()
    is_new = not root.exists()
    with storing(f"the runs folder {root}"), making_folder(root), locked(root / QUEUE_LOCK, LOCK_WAIT_S):
        try:
            for make in makers:
                made.append(make())
        except BaseException:
            for folder in made:
                unmark_active(folder.parent, folder.name)
                shutil.rmtree(folder, ignore_errors=True)
            if is_new:
                (root / QUEUE_LOCK).unlink(missing_ok=True)
            raise
    return made


def start_next(runs_dir: Folder) -> str | None:
    """Start the oldest queued run unless one is running or starting; return its id, None when none was started.

    Raises:
        RunBusyError: when another process has held the queue for half a minute.
    """
    root = runs_root(runs_dir)
    if not root.is_dir():
        return None
    with locked(root / QUEUE_LOCK, LOCK_WAIT_S):
        reap()
        for run_id in _waiting(root):
            folder = schema.run_folder(root, run_id)
            try:
                _start(root, folder)
            except (OSError, CorruptRunError) as error:
                _fail(folder, f"its process could not be started: {error}")
            else:
                return run_id
    return None


def claim(runs_dir: Folder, run_id: str) -> bool:
    """Take a queued run for this very process, which then has to train it; say whether it was next and is taken.

    A process that has just checked a run holds its model and its data already: a second one would load both again.
    Where another process holds the queue for half a minute, the run stays there.
    """
    root = runs_root(runs_dir)
    with suppress(RunBusyError), locked(root / QUEUE_LOCK, LOCK_WAIT_S):
        reap()
        if next(iter(_waiting(root)), None) != run_id:
            return False
        folder, me = schema.run_folder(root, run_id), lifecycle.this_process()
        with suppress(OSError):
            launch = Launch(pid=me.pid, start_time=me.start, opened=read_status(folder).opened)
            launch.write(folder / LAUNCH_NAME)
            return True
    return False


def wake(runs_dir: Folder) -> str | None:
    """Restart a stalled queue; one look into a folder when nothing is queued. A broken run never makes it fail.

    Returns:
        The id of the run that was started, None when none was.
    """
    root = runs_root(runs_dir)
    reap()
    marked = active_ids(root)
    if not marked or any(_is_training(root, run_id) for run_id in marked):
        return None
    try:
        return start_next(root)
    except (DynloraError, OSError):
        return None


def in_queue(runs_dir: Folder) -> tuple[int, int]:
    """Return how many runs train and how many wait; only runs that are not over are opened."""
    root, counts = runs_root(runs_dir), {"running": 0, "queued": 0}
    for run_id in active_ids(root):
        with suppress(DynloraError):
            status = read_status(schema.run_folder(root, run_id))
            name = "running" if status.is_running else status.status
            if name in counts:
                counts[name] += 1
    return counts["running"], counts["queued"]


def _is_training(root: Path, run_id: str) -> bool:
    try:
        return _holds_queue(read_status(schema.run_folder(root, run_id)))
    except DynloraError:
        return False


def _holds_queue(status: Status) -> bool:
    gone = status.other_host and status.heartbeat_age_s > FOREIGN_GONE_S
    return status.is_running and not gone


def _waiting(root: Path) -> list[str]:
    """Return the queued ids, the next first; empty while a run is running or starting. Tidies the marks on the way."""
    queued: list[tuple[float, str]] = []
    busy = False
    for run_id in active_ids(root):
        try:
            folder = schema.run_folder(root, run_id)
            status = read_status(folder)
        except RunNotFoundError:
            _forget(root, run_id)
            continue
        except DynloraError:
            unmark_active(root, run_id)
            continue
        if status.status == "queued" and _is_pending(folder, status):
            queued.append((status.heartbeat, run_id))
        elif status.status == "queued":
            busy = _is_starting(folder) or busy
        elif status.is_running:
            busy = _holds_queue(status) or busy
        else:
            _settle(folder, status)
    return [] if busy else in_order(root, [run_id for _, run_id in sorted(queued)])


def _is_pending(folder: Path, status: Status) -> bool:
    """Tell whether a queued run has no process yet: a launch file of an earlier start counts for nothing."""
    launch = read_launch(folder)
    return launch.opened != status.opened or launch.pid is None


def _is_starting(folder: Path) -> bool:
    """Tell whether a launched run is still on its way; one whose process died first is marked as failed."""
    if read_launch(folder).is_alive:
        return True
    _fail(folder, tail(folder / LOG_NAME).removeprefix("Error: ") or "its process ended before training began")
    return False


def _forget(root: Path, run_id: str) -> None:
    """Remove a mark without a run, unless the run may just be being made."""
    mark = root / ACTIVE_DIR / run_id
    with suppress(OSError):
        if lifecycle.now() - mark.stat().st_mtime > _MARK_GRACE_S:
            mark.unlink()


def _settle(folder: Path, status: Status) -> None:
    """Unmark a run that is over; one that readers kept from being left as a single file is wrapped up now."""
    if status.status == "interrupted":
        unmark_active(folder.parent, folder.name)
        return
    with suppress(DynloraError, OSError):
        annotate(folder)


def _start(root: Path, folder: Path) -> None:
    """Start a run's process; none is left when it cannot be written down, as the next run would be started beside it.

    Raises:
        CorruptRunError: when the run, or its log, cannot be used.
        OSError: when the process cannot be started or written down.
    """
    opened, path = read_status(folder).opened, folder / LAUNCH_NAME
    if _start_spare(root, folder, opened):
        return
    Launch(opened=opened).write(path)
    pid = spawn_detached(resume_command(folder.name, root), folder / LOG_NAME)
    try:
        Launch(pid=pid, start_time=lifecycle.start_time(pid), opened=opened).write(path)
    except BaseException:
        end_child(pid)
        raise


def _start_spare(root: Path, folder: Path, opened: int) -> bool:
    """Let the warm spare train a run, and say whether it does: it is written down before it is told.

    Raises:
        CorruptRunError: when the log cannot be used.
        OSError: when it cannot be written down.
    """
    command = resume_command(folder.name, root)
    spare = warm.KEEPER.take() if warm.is_ours(command) else None
    if spare is None:
        return False
    pid = spare.process.pid
    try:
        check_log(folder / LOG_NAME)
        launch = Launch(pid=pid, start_time=lifecycle.start_time(pid), opened=opened)
        launch.write(folder / LAUNCH_NAME)
    except BaseException:
        spare.end()
        raise
    if not spare.become(command, log=folder / LOG_NAME):
        return False
    adopt(spare.process)
    return True


def refuse(folder: Path, why: str) -> None:
    """Mark a queued run as failed, unless a process has been started for it, which finds out for itself.

    Raises:
        RunBusyError: when another process has held the queue for half a minute.
    """
    with locked(folder.parent / QUEUE_LOCK, LOCK_WAIT_S):
        if _is_pending(folder, read_status(folder)):
            _fail(folder, why)


def is_pending(folder: Path) -> bool:
    """Tell whether a run waits in the queue and no process has been started for it.

    Raises:
        RunNotFoundError: when there is no such run.
        CorruptRunError: when it cannot be read.
    """
    status = read_status(folder)
    return status.status == "queued" and _is_pending(folder, status)


def _fail(folder: Path, why: str) -> None:
    """Mark a run as failed that never began, so that it does not block the queue."""
    with suppress(DynloraError, OSError):
        if read_status(folder).status == "queued":
            annotate(folder, state="failed", error=why)


def is_alive(runs_dir: Folder, run_id: str) -> bool:
    """Tell whether the process that trains a run, or is about to, lives on this machine.

    Raises:
        RunNotFoundError: when there is no such run.
    """
    folder = schema.run_folder(os.fspath(runs_dir), run_id)
    status = read_status(folder)
    if status.status == "queued":
        launch = read_launch(folder)
        return launch.opened == status.opened and launch.is_alive
    return status.is_running and lifecycle.is_alive(status.pid, status.process_start)


def in_line(runs_dir: Folder) -> list[str]:
    """Return the ids of the runs that wait for their start, the next one first; changes nothing."""
    root = runs_root(runs_dir)
    waiting: list[tuple[float, str]] = []
    for run_id in active_ids(root):
        with suppress(DynloraError):
            folder = schema.run_folder(root, run_id)
            if is_pending(folder):
                waiting.append((read_status(folder).heartbeat, run_id))
    return in_order(root, [run_id for _, run_id in sorted(waiting)])


def move(runs_dir: Folder, run_id: str, where: str) -> tuple[int, int]:
    """Move a waiting run within the queue; a move beyond either end leaves it there.

    Args:
        runs_dir: folder of the runs.
        run_id: the run.
        where: one of `MOVES`.

    Returns:
        Its position, 1 for the next, and the number of waiting runs.

    Raises:
        ConfigError: when there is no such move, or the run does not wait.
        RunNotFoundError: when there is no such run.
        RunBusyError: when another process has held the queue for half a minute.
        StorageError: when the disk does not take the order.
    """
    root = runs_root(runs_dir)
    refusal = ConfigError(f"run {run_id}: does not wait in the queue; move a queued run that has not started")
    if not is_pending(schema.run_folder(root, run_id)):
        raise refusal
    with locked(root / QUEUE_LOCK, LOCK_WAIT_S):
        line = in_line(root)
        if run_id not in line:
            raise refusal
        moved = with_moved(line, run_id, where)
        with storing("the order of the queue"):
            QueueOrder(order=tuple(moved)).write(root / ORDER_NAME)
    return moved.index(run_id) + 1, len(moved)


def in_order(root: Path, waiting: Sequence[str]) -> list[str]:
    """Return waiting ids in the order they start; those that nobody moved stay as they are, at the end."""
    named = (QueueOrder.read(root / ORDER_NAME) or QueueOrder()).order
    places = {run_id: place for place, run_id in enumerate(named)}
    return sorted(waiting, key=lambda run_id: places.get(run_id, len(named)))


def with_moved(waiting: Sequence[str], run_id: str, where: str) -> list[str]:
    """Return waiting ids with one of them moved.

    Raises:
        ConfigError: when there is no such move.
    """
    if where not in MOVES:
        raise ConfigError(f"move={where}: must be one of {', '.join(MOVES)}; give one of these")
    place = list(waiting).index(run_id)
    others = [other for other in waiting if other != run_id]
    others.insert(MOVES[where](place, len(others)), run_id)
    return others


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
