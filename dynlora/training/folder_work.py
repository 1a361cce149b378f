"""Work on a run folder from its start to its end, whatever its kind; whether it can continue, which needs no torch."""

from __future__ import annotations

import logging
import os
import platform
import re
import shutil
import signal
import sys
import tempfile
import threading
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import psutil

from dynlora.config import RunConfig, parse_config
from dynlora.config_files import as_made
from dynlora.errors import ConfigError, DynloraError, storing
from dynlora.jobs import launch
from dynlora.jobs.environment import starts_others
from dynlora.renamed_settings import gone_values
from dynlora.safe_files import is_empty, making_folder, output_folder
from dynlora.store.lifecycle import forget_stop, request_stop, stop_requested, this_process
from dynlora.store.meta import TRAIN, kind_of, table, whole
from dynlora.store.reader import RunReader
from dynlora.store.summary import check_can_resume
from dynlora.store.writer import RunWriter
from dynlora.training.progress_stream import StopRequest

FIXED = ("seed", "model", "data", "adapter", "strategy", "train.batch_size", "train.grad_accum", "log.eval_rows")
"""What a run keeps: its state fits no other model, data, adapters, method or order of the examples. Its best
adapter is the best on one sample of the held-out examples."""

MOVED = ("model.name", "data.name", "data.path")
"""Places, which may have changed: a digest says whether the data are the same, a checkpoint whether the model fits."""

DEFAULT = "its default"
"""Stands for a field of a method that is not set."""

Changes = Mapping[str, tuple[Any, Any]]
"""Old and new value of each setting that was changed, by dotted key."""


def check_resumable(run_id: str, status: Any, force: bool) -> None:
    """Refuse to continue a run that is finished, running, or may be running elsewhere.

    Raises:
        ConfigError: one sentence that says what to do instead.
    """
    if status.status == "finished":
        raise ConfigError(f"resume {run_id}: the run is finished; start a new run with more train.steps")
    if status.is_running and status.other_host and not force:
        raise ConfigError(
            f"resume {run_id}: the run was last written on host {status.host}, {status.heartbeat_age_s:.0f} s ago; "
            "make sure it has ended there, then add --force"
        )
    if status.is_running and not status.other_host:
        raise ConfigError(f"resume {run_id}: the run is running (process {status.pid}); stop it first")


def check_own(run_id: str, meta: Mapping[str, Any]) -> None:
    """Refuse to train a run of another kind, and one that another program trained and that was only recorded.

    Raises:
        ConfigError: one sentence that says what to do instead.
    """
    if (kind := kind_of(meta)) != TRAIN:
        raise ConfigError(f"resume {run_id}: is a {kind} run and not trained; the command resume continues it")
    if meta.get("imported"):
        by = meta.get("recorded_by")
        raise ConfigError(f"resume {run_id}: the run was imported from {by!s:.40}; continue it where it was trained")
    if by := meta.get("recorded_by"):
        raise ConfigError(f"resume {run_id}: the run was trained by a script with {by!s:.40}; continue it there")


def check_method(run_id: str, stored: Any) -> None:
    """Refuse to continue a run whose method had a value that no method has now; its pages and its adapter stay.

    Args:
        run_id: of the run.
        stored: the settings in the store.

    Raises:
        ConfigError: one sentence that says what to do instead.
    """
    for key, value in gone_values(table(table(stored).get("strategy"))).items():
        raise ConfigError(
            f"resume {run_id}: strategy.{key}={value!s:.40} is no longer a setting, and a run keeps its method; start "
            "a new run without it"
        )


def changed_settings(run_id: str, stored: Any, config: RunConfig) -> Changes:
    """Return what differs between the settings a run began with and its config.yaml; length, rates and log may.

    Args:
        run_id: of the run.
        stored: the settings in the store; those of runs that kept none cannot be compared.
        config: what config.yaml says now.

    Raises:
        ConfigError: when something of `FIXED` was changed.
    """
    try:
        before = _flat(parse_config(as_made(stored))) if isinstance(stored, Mapping) else {}
    except ConfigError:
        return {}  # of another version: what it says cannot be read any more
    now = _flat(config)
    keys = [key for key in {**before, **now} if key in before or before and key.startswith("strategy.")]
    pairs = {key: (before.get(key, DEFAULT), now.get(key, DEFAULT)) for key in keys}
    changed = {key: values for key, values in pairs.items() if values[0] != values[1]}
    fixed = [key for key in changed if not {key, key.partition(".")[0]}.isdisjoint(FIXED) and key not in MOVED]
    if fixed:
        old, new = changed[fixed[0]]
        raise ConfigError(
            f"resume {run_id}: {fixed[0]} was changed in config.yaml from {old} to {new}, and a run keeps its method, "
            "data, adapters and evaluations; restore it, or start a new run"
        )
    return changed


def record_changes(writer: RunWriter, step: int, config: RunConfig, total: int, changed: Changes) -> None:
    """Write changed settings to the store: an event, a line of the log, and the settings as they are now."""
    if not changed:
        return
    writer.event(step, "settings", [], {"changed": {key: list(values) for key, values in changed.items()}})
    changes = ", ".join(f"{key} from {old} to {new}" for key, (old, new) in changed.items())
    writer.log("warning", f"config.yaml was changed before step {step} was continued: {changes}")
    for key, value in (
        ("config", config.stored()),
        ("model", config.model.name),
        ("data", config.data.source),
    ):
        writer.set_meta(key, value)
    writer.update_max_steps(total)


def _flat(config: RunConfig) -> dict[str, Any]:
    """Return settings by dotted key; the name of a run is no setting."""
    flat: dict[str, Any] = {}
    for section, value in config.model_dump(mode="json").items():
        if isinstance(value, dict):
            flat |= {f"{section}.{key}": item for key, item in value.items()}
        elif section != "name":
            flat[section] = value
    return flat


LEFT = f".dynlora-export-{re.sub('[^0-9A-Za-z]+', '-', platform.node())[:40]}-"
"""How a folder that is being written is called, before the number of its process: a killed one leaves it."""

ARCHIVE = ".zip"
"""Ending of an `out` that is written as one file."""

OTHER_ARCHIVES = (".tar", ".tar.gz", ".tgz", ".tar.xz", ".tar.bz2", ".7z", ".rar")
"""Endings of archives that are not written: a folder of such a name would be taken for one."""


def check_out(out: Path) -> Path:
    """Return the place that is written to.

    Raises:
        ConfigError: when something is there already, but for an empty folder.
    """
    if str(out) == "-":
        raise ConfigError("--out -: an adapter is a folder or a .zip file, not one text; give a name")
    if out.name.lower().endswith(OTHER_ARCHIVES):
        raise ConfigError(f"--out {out}: archives are written as .zip; give such a name, or that of a folder")
    return output_folder(out, "--out", None if out.suffix.lower() == ARCHIVE else is_empty)


@contextmanager
def staged(out: Path) -> Iterator[Path]:
    """Lend an empty folder beside `out`, and put what was written there in its place when all went well.

    Raises:
        ConfigError: when something is there already, but for an empty folder.
        StorageError: when the disk refuses what is written in the block, or the place.
    """
    target = check_out(out)
    is_archive = target.suffix.lower() == ARCHIVE
    with storing(f"the export to {out}"), making_folder(target.parent), _ended_in_order():
        _remove_left(target.parent)
        staging = Path(tempfile.mkdtemp(prefix=f"{LEFT}{os.getpid()}-", dir=target.parent))
        try:
            yield staging
            (_place_archive if is_archive else _place_folder)(staging, target)
        finally:
            shutil.rmtree(staging, ignore_errors=True)


@contextmanager
def _ended_in_order() -> Iterator[None]:
    """Let SIGTERM end the process by way of every `finally` for a block; a handler of somebody else's stays."""
    is_ours = (
        threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    )
    if is_ours:
        signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        yield
    finally:
        if is_ours:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _remove_left(parent: Path) -> None:
    """Remove what exports into the same folder left there when their processes on this machine were killed."""
    for entry in parent.glob(f"{LEFT}*"):
        pid = entry.name.removeprefix(LEFT).partition("-")[0]
        if pid.isdecimal() and not psutil.pid_exists(int(pid)):
            shutil.rmtree(entry, ignore_errors=True)


def _place_folder(staging: Path, out: Path) -> None:
    """Put the files in their place, all or none: a new folder by one rename, an empty one that is there file by file.

    The empty folder stays the one it is: it may be a disk of its own, or somebody's working directory.
    """
    if not out.exists():
        out.mkdir()
        staging.chmod(out.stat().st_mode & 0o777)  # a folder for the time being is its owner's alone
        staging.rename(out)
        return
    moved: list[Path] = []
    try:
        for path in sorted(staging.iterdir()):
            moved.append(out / path.name)
            shutil.move(path, moved[-1])
    except OSError:
        for path in moved:
            path.unlink(missing_ok=True)
        raise


def _place_archive(staging: Path, out: Path) -> None:
    """Pack the files, not compressed: weights do not get smaller."""
    partial = staging / "archive"
    with zipfile.ZipFile(partial, "x") as archive:
        for path in sorted(staging.iterdir()):
            if path != partial:
                archive.write(path, f"{out.stem}/{path.name}")
    partial.rename(out)


logger = logging.getLogger(__name__)


class RunFailedError(DynloraError):
    """A run ended in an error."""


@dataclass(frozen=True)
class Outcome:
    """How a run ended: finished, stopped or failed, the signal that stopped it (0 for none), and where it is."""

    folder: Path
    state: str
    signal: int = 0
    error: str | None = None


Work = Callable[[RunWriter, StopRequest], bool]
"""Does what a run is for and records it; returns True when all is done, False when it stopped because it was asked to.

It looks at the stop between two steps that can be continued later.
"""


def work_on(folder: Path, resume_from: int | None, work: Work) -> Outcome:
    """Do the work of a run folder and leave it in the state that it ended in; then the oldest queued run is started.

    Args:
        folder: of the run, which is queued, or is at a step that it can continue from.
        resume_from: the step it continues from, whose later rows are deleted; None to start over.
        work: what is to be done.

    Raises:
        RunBusyError: when another process writes the run.
        CorruptRunError: when it cannot be read or written.
    """
    try:
        return _worked(folder, resume_from, work)
    finally:
        if starts_others():
            launch.wake(folder.parent)  # says nothing where the queue is busy or broken: this run's end is what counts


def _worked(folder: Path, resume_from: int | None, work: Work) -> Outcome:
    with RunWriter.open(folder, resume_from=resume_from) as writer, stop_of(folder) as stop:
        if resume_from is not None:
            writer.event(resume_from, "resume", [], {"step": resume_from})
        try:
            is_done = not stop() and work(writer, stop)
        except BaseException as error:
            if not isinstance(error, DynloraError):
                logger.exception("the run failed")
            writer.finish("failed", reason(error))
            if isinstance(error, Exception):
                return Outcome(folder, "failed", error=reason(error))
            raise
        writer.finish("finished" if is_done else "stopped")
    return Outcome(folder, "finished") if is_done else Outcome(folder, "stopped", stop.signal or signal.SIGTERM)


@contextmanager
def stop_of(folder: Path) -> Iterator[StopRequest]:
    """Remember a stop of the run that this process works on, and make it visible to others, inside the block."""
    me = this_process()
    try:
        is_asked = partial(stop_requested, folder, me.pid, me.start)
        with StopRequest(folder, lambda: request_stop(folder, me.pid, me.start), is_asked) as stop:
            yield stop
    finally:
        forget_stop(folder)


def take_threads(meta: Mapping[str, Any]) -> None:
    """Compute with as many threads as a run began with, as its store says; bits depend on them."""
    import torch  # a run that is refused loads none

    threads = whole(table(meta.get("machine")).get("threads"))
    if threads is not None and 0 < threads <= 1024:
        torch.set_num_threads(threads)


def check_can_work(folder: Path, force: bool) -> None:
    """Refuse a run that is finished, running, may be running elsewhere, or was fetched without what it continues from.

    Args:
        folder: of the run.
        force: also when another machine claims to be working on it.

    Raises:
        ConfigError: one sentence that says what to do instead.
        CorruptRunError: when it cannot be read.
    """
    with RunReader(folder) as reader:
        status = reader.status()
    check_resumable(folder.name, status, force)
    check_can_resume(folder, status.opened)


def reason(error: BaseException) -> str:
    """Return why a run failed, in a line."""
    text = (str(error).strip().splitlines() or [""])[0]
    return text if isinstance(error, DynloraError) else f"{type(error).__name__}: {text}"[:500]
