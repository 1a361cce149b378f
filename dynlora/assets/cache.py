"""The folder that fetched files are kept in: where it is, who may fill it, whether it still holds what it should."""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from dynlora.errors import AssetError

T = TypeVar("T")


class UnavailableError(Exception):
    """One place did not have what was asked for; its text is the reason, to be put into an `AssetError`."""


def within(seconds: float, call: Callable[[], T]) -> T:
    """Run `call` and give up after `seconds`, whatever it hangs in.

    A library's own time-outs do not cover name look-up, retries and redirects; a thread left behind does no harm, since
    it is a daemon and its result is dropped.

    Args:
        seconds: How long to wait.
        call: What to run; it must not hold locks or write files.

    Raises:
        UnavailableError: There was no answer in time.
    """
    results: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(call())
        except BaseException as error:  # handed over to the waiting thread, which raises it
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True, name="dynlora-lookup")
    thread.start()
    thread.join(seconds)
    if errors:
        raise errors[0]
    if not results:
        raise UnavailableError(f"no answer within {seconds:.0f} s")
    return results[0]


def reason(error: BaseException) -> str:
    """The first line of an error, or its kind when it has no text."""
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".:") if lines else type(error).__name__


LOCK_TIMEOUT_S = 1800.0
"""How long one process waits for another that is fetching the same files."""

_PARTIAL = ".partial-"
_log = logging.getLogger(__name__)


def cache_dir() -> Path:
    """The cache folder: `$DYNLORA_CACHE`, or the user's cache folder of this system."""
    if override := os.environ.get("DYNLORA_CACHE"):
        return Path(os.path.expanduser(override)).absolute()
    import platformdirs

    return Path(platformdirs.user_cache_dir("dynlora", appauthor=False))


def sha256_of(path: Path) -> str:
    """The sha256 of a file in hexadecimal; about 0.1 s for 90 MB, so it is simply done at every use."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def verify_files(folder: Path, digests: Mapping[str, str]) -> None:
    """Check that a cached folder still holds the pinned bytes.

    Args:
        folder: The cached folder.
        digests: File name -> sha256.

    Raises:
        AssetError: A file is missing, cannot be read, or differs from its pin.
    """
    for name, expected in digests.items():
        try:
            digest = sha256_of(folder / name)
        except OSError as error:
            raise AssetError(f"{folder / name} cannot be read ({error.strerror}): {_refetch(folder)}") from error
        if digest != expected:
            raise AssetError(
                f"{folder / name} was changed after the download (sha256 {digest[:12]}..., pinned "
                f"{expected[:12]}...): {_refetch(folder)}"
            )


def _refetch(folder: Path) -> str:
    return f"delete the folder {folder} and run again to download it again."


@contextmanager
def filling(folder: Path) -> Generator[Path | None, None, None]:
    """Fill a cache folder at most once, whole or not at all.

    Holds the folder's lock. Yields an empty folder beside `folder` to write into, which takes the place of `folder`
    when the block ends and is removed when the block fails; or None when another process has filled `folder` meanwhile.

    Args:
        folder: The cache folder to fill.

    Raises:
        AssetError: The cache folder cannot be written, or another process has held the lock for too long.
    """
    import filelock

    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(folder.parent / f".{folder.name}.lock", timeout=LOCK_TIMEOUT_S)
        with lock:
            _remove_leftovers(folder)
            if folder.is_dir():
                yield None
                return
            staging = Path(tempfile.mkdtemp(prefix=f"{_PARTIAL}{folder.name}-", dir=folder.parent))
            try:
                yield staging
                _publish(staging, folder)
            finally:
                shutil.rmtree(staging, ignore_errors=True)
    except filelock.Timeout as error:
        raise AssetError(
            f"another process has been filling {folder} for {LOCK_TIMEOUT_S / 60:.0f} minutes; wait for it, or end it."
        ) from error
    except OSError as error:
        raise AssetError(
            f"the cache folder {folder.parent} cannot be written ({error.strerror or error}): set DYNLORA_CACHE to a "
            "writable folder with enough space."
        ) from error


def _remove_leftovers(folder: Path) -> None:
    """Remove what a killed process left; called under the lock, so nobody is writing there."""
    for leftover in folder.parent.glob(f"{_PARTIAL}{folder.name}-*"):
        _log.info("removing an unfinished download, %s", leftover)
        shutil.rmtree(leftover, ignore_errors=True)


def _publish(staging: Path, folder: Path) -> None:
    """Flush the files to disk, then give the folder its name in one step."""
    for path in staging.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
    staging.chmod(0o755)
    staging.rename(folder)
