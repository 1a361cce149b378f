"""The folder that fetched files are kept in: where it is, who may fill it, whether it still holds what it should."""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import tempfile
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path

from dynlora.errors import AssetError

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
