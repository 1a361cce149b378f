"""A folder or an archive that is written beside its place and put there whole, or not at all."""

from __future__ import annotations

import os
import platform
import re
import shutil
import signal
import sys
import tempfile
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from dynlora.errors import ConfigError, storing
from dynlora.safe_files import is_empty, making_folder, output_folder

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
