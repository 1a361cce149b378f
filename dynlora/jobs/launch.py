"""Starting, stopping and resuming runs, each in a process of its own, and what only a process with torch can say.

No choice of a user is ever put on a command line except a run's checked id: everything else travels in files of the
runs folder, and no shell is involved.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from dynlora import discovery
from dynlora.assets.hub import cache_dir
from dynlora.config_files import yaml_text
from dynlora.errors import ConfigError, CorruptRunError, DynloraError, RunBusyError, StorageError, storing
from dynlora.jobs import helper_job
from dynlora.jobs.environment import python_command
from dynlora.jobs.queue import (
    FOREIGN_GONE_S,
    LAUNCH_NAME,
    LOCK_WAIT_S,
    QUEUE_LOCK,
    delete,
    in_queue,
    is_alive,
    read_launch,
    read_status,
    restore,
    start_next,
    trashed,
    wake,
)
from dynlora.jobs.spawn import Folder, locked, own_folder, reap, runs_root
from dynlora.kinds.run_kind import registry
from dynlora.safe_files import write_text
from dynlora.store import lifecycle, schema
from dynlora.store.lifecycle import annotate, forget_stop, remove_old, remove_unfinished, request_stop
from dynlora.store.record import Record, Row
from dynlora.store.rows import Status
from dynlora.store.summary import check_can_resume, check_looks_for_stops

__all__ = ["delete", "in_queue", "is_alive", "restore", "start_next", "trashed", "wake"]

INCOMING_DIR = ".incoming"
"""Folder of a runs folder that holds what is handed to children."""

CATALOG_TIMEOUT_S = 120.0
MAX_CATALOG_BYTES = 4_000_000
_PACKAGE = Path(__file__).parents[1]


def strategies_command() -> list[str]:
    """Return the command that lists the strategies with their typed hyper-parameters."""
    return python_command("dynlora", "strategies", "--json")


def preflight_command(config: Path) -> list[str]:
    """Return the command that checks a configuration and says what the run will cost."""
    return python_command("dynlora", "preflight", "--config", str(config), "--json")


def tokens_command(config: Path) -> list[str]:
    """Return the command that shows the tokens of a configuration's data, and which of them are in the loss."""
    return python_command("dynlora", "data", "tokens", "--config", str(config), "--json")


def preflight(config: dict[str, Any], runs_dir: Folder, *, timeout_s: float = 300.0) -> dict[str, Any]:
    """Return what `dynlora preflight --json` says of a configuration; one check at a time in a runs folder.

    Args:
        config: the configuration as plain values.
        runs_dir: folder of the runs; made when missing. Nothing is left in it.
        timeout_s: seconds to wait for the check, which may fetch a model.

    Raises:
        StorageError: when the disk does not take the configuration.
        DynloraError: when the configuration cannot be used, with the child's sentence; when it fails or takes too long.
    """
    return _of_config(preflight_command, config, runs_dir, "the configuration was not checked", timeout_s)


def token_preview(config: dict[str, Any], runs_dir: Folder, *, timeout_s: float = 300.0) -> dict[str, Any]:
    """Return what `dynlora data tokens --json` says of a configuration.

    Raises:
        StorageError, DynloraError: as `preflight`.
    """
    return _of_config(tokens_command, config, runs_dir, "the tokens were not shown", timeout_s)


def _of_config(
    command: Callable[[Path], list[str]], config: dict[str, Any], runs_dir: Folder, failed: str, timeout_s: float
) -> dict[str, Any]:
    """Return what a command says of a configuration that is handed to it in a file; one at a time in a runs folder."""
    incoming = own_folder(runs_root(runs_dir, make=True), INCOMING_DIR)
    text = yaml_text(config)
    request = incoming / f"check-{hashlib.sha256(text.encode()).hexdigest()[:20]}.yaml"
    with locked(incoming / "check.lock", timeout_s):
        try:
            with storing("the configuration to check"):
                write_text(request, text)
            return helper_job.run("check", command(request), timeout_s, failed)
        finally:
            request.unlink(missing_ok=True)


@lru_cache(maxsize=1)
def catalog() -> dict[str, Any]:
    """Return the strategies and their typed hyper-parameters under `strategies`.

    A child that has torch is asked once per state of the source: the answer is kept in the user's cache folder, so
    that pages open at once. Whoever asks while another process is asking waits for its answer.

    Raises:
        DynloraError: when the child fails.
    """
    cache_file = cache_dir() / f"strategies-{_catalog_version()}.json"
    try:
        cache_file.parent.mkdir(parents=True, exist_ok=True)
        with locked(cache_file.with_suffix(".lock"), CATALOG_TIMEOUT_S):
            catalogue = _kept_catalog(cache_file)
            if catalogue is None:
                catalogue = _ask_catalog()
                write_text(cache_file, json.dumps(catalogue))
            return catalogue
    except (OSError, RunBusyError, StorageError):
        return _ask_catalog()  # a cache folder that cannot be written costs time, nothing else


def _catalog_version() -> str:
    """Return a digest of what the catalogue is made of: plug-ins and any engine file, as choices come from there."""
    digest = hashlib.sha256()
    with suppress(PackageNotFoundError):
        digest.update(version("dynlora").encode())
    digest.update("\0".join(discovery.versions("strategies")).encode())
    sources = (path for folder in ("engine", "strategies") for path in (_PACKAGE / folder).rglob("*.py"))
    for path in sorted(sources):
        digest.update(path.relative_to(_PACKAGE).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def _kept_catalog(cache_file: Path) -> dict[str, Any] | None:
    with suppress(OSError, ValueError, RecursionError):
        if cache_file.stat().st_size <= MAX_CATALOG_BYTES:
            values = json.loads(cache_file.read_text("utf-8"))
            if isinstance(values, dict) and isinstance(values.get("strategies"), list):  # pyright: ignore
                return values  # pyright: ignore[reportUnknownVariableType]
    return None


def _ask_catalog() -> dict[str, Any]:
    strategies = helper_job.run("check", strategies_command(), CATALOG_TIMEOUT_S, "the strategies cannot be listed")
    return {"strategies": strategies}


REQUEST = ".check"
"""Ending of the file that asks for the check of a queued run; checks are done one at a time, by one process."""

CHECKS_LOCK = "checks.lock"


def request_check(root: Path, run_id: str) -> bool:
    """Ask for the check of a queued run, and say whether a process has to be started for it: none is at it.

    Raises:
        StorageError: when the disk does not take the request.
    """
    incoming = own_folder(root, INCOMING_DIR)
    with storing(f"the request to check run {run_id}"):
        write_text(incoming / f"{run_id}{REQUEST}", run_id)
    try:
        with locked(incoming / CHECKS_LOCK, 0):
            return True
    except RunBusyError:
        return False


def requested_checks(root: Path) -> Iterator[str]:
    """Yield each run whose check was asked for, oldest first; none where another process is at it.

    Whoever asks writes the request before looking for a process that is at it, so one more look after the lock is free
    misses no request.
    """
    incoming = own_folder(root, INCOMING_DIR)
    with suppress(RunBusyError):
        while _requests(incoming):
            with locked(incoming / CHECKS_LOCK, 0):
                while requests := _requests(incoming):
                    requests[0].unlink(missing_ok=True)
                    yield requests[0].name.removesuffix(REQUEST)


def _requests(incoming: Path) -> list[Path]:
    """Return the requests, those of older runs first: ids begin with the time."""
    return sorted(path for path in incoming.iterdir() if path.name.endswith(REQUEST))


T = TypeVar("T")

_KEY = re.compile(r"[0-9A-Za-z][0-9A-Za-z_-]{0,63}\Z")
_STARTING_STOP_S = 10.0
_ENDED_S = 10.0
RESERVED = ".id"
"""Ending of the note of an id that a launch is about to take."""


@dataclass(frozen=True)
class RunHandle:
    """A run that was put into the queue.

    Attributes:
        id: id of the run.
        folder: its folder, absolute.
    """

    id: str
    folder: Path

    def status(self) -> Status:
        """Return where the run stands now."""
        return read_status(self.folder)


def train_command(config: Path, runs_dir: Path) -> list[str]:
    """Return the command that checks a configuration, makes a queued run of it, and trains it if it is next."""
    command = python_command("dynlora", "train", "--config", str(config), "--queue", "--stay", "--json")
    return [*command, "--runs-dir", str(runs_dir)]


def enqueue(config: dict[str, Any], runs_dir: Folder, *, key: str, timeout_s: float = 300.0) -> RunHandle:
    """Check a configuration in a child process, put the run into the queue and start the queue.

    Args:
        config: the configuration as plain values.
        runs_dir: folder of the runs; made when missing.
        key: idempotency key; a second call with the same key returns the run of the first.
        timeout_s: seconds to wait for the check, which may fetch a model.

    Raises:
        ConfigError: when the key or the configuration cannot be used; the text is the child's sentence.
        StorageError: when the disk does not take the configuration.
        DynloraError: when the child fails or takes too long.
    """
    root = runs_root(runs_dir, make=True)

    def ask(request: Path) -> str:
        with storing("the configuration of the run"):
            write_text(request, yaml_text(config))
        return _ask_train(request, root, timeout_s)

    run_id = launched_once(root, key, ask, timeout_s)
    wake(root)
    return RunHandle(run_id, schema.run_folder(root, run_id, must_exist=False))


def launched_once(root: Path, key: str, make: Callable[[Path], str], timeout_s: float = 300.0) -> str:
    """Return the id of the run that was launched under a key, made now where there is none.

    Args:
        root: folder of the runs.
        key: idempotency key.
        make: makes the run and returns its id; it is given a place for its configuration.
        timeout_s: seconds to wait for another launch under the same key.

    Raises:
        ConfigError: when the key cannot be used.
        StorageError: when the disk does not take what is noted of the launch.
    """
    return schema.check_run_id(made_once(root, key, "id", make, timeout_s))


class Launched(Record):
    """What was made under a key: a run, or the runs of a sweep."""

    KEEPS_REST: ClassVar[bool] = True

    id: str | None = None
    ids: Row[str] | None = None


def made_once(root: Path, key: str, field: str, make: Callable[[Path], T], timeout_s: float) -> T:
    """Return what was made under a key, and make it now where nothing was.

    Args:
        root: folder of the runs.
        key: idempotency key.
        field: of `Launched` that it is noted in.
        make: makes it; it is given a place for its configuration.
        timeout_s: seconds to wait for another launch under the same key.

    Raises:
        ConfigError: when the key cannot be used.
        StorageError: when the disk does not take what is noted of the launch.
    """
    if not _KEY.match(key):
        raise ConfigError(f"key {key[:80]!r} of a launch: use 1 to 64 letters, digits, '-' and '_'")
    incoming = own_folder(root, INCOMING_DIR)
    remove_unfinished(root)
    _sweep_leftovers(incoming)
    with locked(incoming / f"{key}.lock", timeout_s):
        answer = incoming / f"{key}.json"
        known = getattr(Launched.read(answer) or Launched(), field)
        if known is not None:
            return known
        made = make(incoming / f"{key}.yaml")
        queued = f"run {made} was queued" if isinstance(made, str) else "the runs were queued"
        with storing(f"{queued}, but the note of that"):
            Launched.model_validate({field: made}).write(answer)
    return made


def _sweep_leftovers(incoming: Path) -> None:
    """Remove configurations and notes that starts which were killed left a day ago."""
    endings = (".yaml", RESERVED, REQUEST)
    remove_old(incoming, lambda entry: entry.suffix in endings or entry.name.startswith("."))


def _ask_train(request: Path, root: Path, timeout_s: float) -> str:
    queued = helper_job.run("check", train_command(request, root), timeout_s, "the run was not queued")
    try:
        return schema.check_run_id(str(queued["id"]))
    except (ValueError, KeyError, TypeError):
        raise DynloraError("the run was not queued: the check returned no run") from None


def stop(runs_dir: Folder, run_id: str) -> str:
    """Ask a run to stop: its process saves a checkpoint and ends. A queued run leaves the queue.

    Asking any number of times is one stop.

    Returns:
        The status right after: `stopped` for a queued run, `stopping` for one that is now saving its state.

    Raises:
        RunNotFoundError: when there is no such run.
        RunBusyError: when another machine that was to run it is silent.
        ConfigError: when it is neither queued nor running, or a program of its own trains it, which nobody can ask.
    """
    root = runs_root(runs_dir)
    folder = schema.run_folder(root, run_id)
    status = read_status(folder)
    if status.status == "queued":  # only then is the lock taken: a refused stop writes nothing
        with locked(root / QUEUE_LOCK, LOCK_WAIT_S):
            status = read_status(folder)
            if status.status == "queued":
                status = _stop_queued(folder, status)
                if not status.is_running:
                    return status.status
    if status.other_host:
        return _stop_elsewhere(folder, status)
    if not status.is_running:
        raise ConfigError(f"run {run_id} is {status.status}: only a queued or running run can be stopped")
    if status.status == "running":
        check_looks_for_stops(folder)
        request_stop(folder, status.pid, status.process_start)
        if sys.platform != "win32":  # there a signal ends a process at once; the run looks for the request after a step
            with suppress(RunBusyError):  # and so does a script that trains it, which is not signalled
                _signal(run_id, status.pid, status.process_start, signal.SIGTERM)
    return read_status(folder).status


def end_now(runs_dir: Folder, run_id: str) -> str:
    """End a run's process at once: what it trained since its last checkpoint is lost. A queued run leaves the queue.

    Returns:
        The status right after: `stopped` for a queued run, `interrupted` for one that was training.

    Raises:
        RunNotFoundError: when there is no such run.
        RunBusyError: when it runs on another machine, or its process is not one of dynlora's.
        ConfigError: when it is neither queued nor running.
    """
    folder = schema.run_folder(runs_root(runs_dir), run_id)
    status = read_status(folder)
    if status.other_host:
        raise RunBusyError(f"run {run_id} trains on host {status.host}: give --now there, or stop it without --now")
    if not status.is_running:
        return stop(runs_dir, run_id)
    _signal(run_id, status.pid, status.process_start, getattr(signal, "SIGKILL", signal.SIGTERM))
    deadline = time.monotonic() + _ENDED_S
    while lifecycle.is_alive(status.pid, status.process_start) and time.monotonic() < deadline:
        reap()
        time.sleep(0.02)
    forget_stop(folder)
    start_next(runs_root(runs_dir))
    return read_status(folder).status


def _stop_elsewhere(folder: Path, status: Status) -> str:
    """Leave a stop for a process of another machine, which looks for it after a step."""
    if status.heartbeat_age_s > FOREIGN_GONE_S:
        raise RunBusyError(
            f"run {folder.name} is training on host {status.host}, silent for {status.heartbeat_age_s:.0f} s: "
            "stop it on that host"
        )
    check_looks_for_stops(folder)
    request_stop(folder, status.pid, status.process_start)
    return read_status(folder).status


def _stop_queued(folder: Path, status: Status) -> Status:
    launch = read_launch(folder)
    if launch.opened == status.opened and launch.is_alive:
        _signal(folder.name, launch.pid, launch.start_time, signal.SIGTERM)
        deadline = time.monotonic() + _STARTING_STOP_S
        while launch.is_alive and time.monotonic() < deadline:
            time.sleep(0.05)
        if read_status(folder).status != "queued":
            return read_status(folder)
    annotate(folder, state="stopped")
    return read_status(folder)


def _signal(run_id: str, pid: int | None, start: float | None, number: int) -> None:
    """Send a signal to exactly the process that wrote the run, if it is one of ours; a pid alone is not trusted."""
    if pid is None or not lifecycle.is_alive(pid, start):
        return
    if pid == os.getpid() or not lifecycle.is_ours(lifecycle.command_line(pid), _working_commands()):
        raise RunBusyError(f"run {run_id}: process {pid} was not started by dynlora, so it was not ended; end it there")
    with suppress(ProcessLookupError):
        os.kill(pid, number)
        if hasattr(signal, "SIGCONT"):  # a suspended process would keep the signal to itself until it continues
            os.kill(pid, signal.SIGCONT)


def _working_commands() -> set[str]:
    """Return the commands whose process may write a run; a warm spare becomes one of the others."""
    return {"resume", "warm", *(kind.command for kind in registry().values() if kind.command)}


def resume(runs_dir: Folder, run_id: str, force: bool = False) -> str:
    """Put a stopped, failed or interrupted run back into the queue and start the queue.

    Args:
        runs_dir: folder of the runs.
        run_id: the run.
        force: also when another machine claims to be training it.

    Returns:
        The status right after: `queued`, whether it is starting or waiting for another run.

    Raises:
        RunNotFoundError: when there is no such run.
        RunBusyError: when it is running.
        ConfigError: when it is finished, or was fetched without the checkpoint it would continue from.
        CorruptRunError: when it cannot be read, or what it left of its last start cannot be removed.
    """
    root = runs_root(runs_dir)
    folder = schema.run_folder(root, run_id)
    _resumable(folder, force)
    with locked(root / QUEUE_LOCK, LOCK_WAIT_S):
        status = _resumable(folder, force)
        if status.status != "queued":
            _forget_launch(folder)
            annotate(folder, state="queued", meta={"resume": True})
    start_next(root)
    return "queued"


def _resumable(folder: Path, force: bool) -> Status:
    """Return the status of a run that can be put back into the queue.

    Raises:
        DynloraError: when it cannot, see `resume`.
    """
    status = read_status(folder)
    if status.status == "finished":
        raise ConfigError(f"run {folder.name} is finished; there is nothing to resume")
    if status.is_running and not (status.other_host and force):
        where = f" on host {status.host}; if that process is gone, use --force" if status.other_host else ""
        raise RunBusyError(f"run {folder.name} is running{where}")
    check_can_resume(folder, status.opened)
    return status


def _forget_launch(folder: Path) -> None:
    try:
        (folder / LAUNCH_NAME).unlink(missing_ok=True)
    except OSError as error:
        message = f"run {folder.name}: {LAUNCH_NAME} cannot be removed ({error.strerror}): remove it"
        raise CorruptRunError(message) from None
