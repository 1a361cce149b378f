"""Questions that only a process with torch can answer, asked of a short child: which strategies, what a run costs.

Whoever asks stays free of torch. What a user chose travels in a file of the runs folder, never on the command line.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from dynlora.assets.hub import cache_dir
from dynlora.config_files import yaml_text
from dynlora.errors import RunBusyError, StorageError, storing
from dynlora.jobs import helper_job
from dynlora.jobs.environment import python_command
from dynlora.jobs.spawn import Folder, locked, own_folder, runs_root
from dynlora.safe_files import write_text

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
    """Return a digest of everything the catalogue is made of: a field's choices and help come from any engine file."""
    digest = hashlib.sha256()
    with suppress(PackageNotFoundError):
        digest.update(version("dynlora").encode())
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
