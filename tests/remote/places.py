"""Places that break, and what is in a run: for the tests of runs that are sent somewhere and fetched again."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fsspec.implementations.local import LocalFileSystem

from dynlora.remote.place import Place
from dynlora.store.summary import COPIED_NAME
from dynlora.store.whole_tables import TABLES, at_one_moment, batches


class Broken(OSError):
    """The connection is gone."""


class BreakingDisk(LocalFileSystem):
    """A disk that a place is reached by, and that breaks at one of its operations."""

    cachable = False  # fsspec would lend the same disk, with its count, to the next test

    def __init__(self, at: int = -1, *, half: bool = False, die: Callable[[], Any] | None = None) -> None:
        """Break at operation `at`, counted from 0; a file is then half written if `half`; `die` ends the process."""
        super().__init__()
        self.at, self.half, self.count = at, half, 0
        self.die = die

    def _counted(self, name: str) -> None:
        if self.count == self.at:
            self.count += 1
            if self.die is not None:
                self.die()
            raise Broken(f"broke in {name}")
        self.count += 1

    def put_file(self, lpath: str, rpath: str, *args: Any, **kwargs: Any) -> Any:
        if self.count == self.at and self.half:
            content = Path(lpath).read_bytes()
            Path(rpath).write_bytes(content[: len(content) // 2])
        self._counted("put_file")
        return super().put_file(lpath, rpath, *args, **kwargs)

    def mv(self, path1: str, path2: str, *args: Any, **kwargs: Any) -> Any:
        self._counted("mv")
        return super().mv(path1, path2, *args, **kwargs)

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        self._counted("makedirs")
        super().makedirs(path, exist_ok=exist_ok)

    def ls(self, path: str, detail: bool = False, **kwargs: Any) -> Any:
        self._counted("ls")
        return super().ls(path, detail=detail, **kwargs)

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **kwargs: Any) -> Any:
        self._counted("cat_file")
        return super().cat_file(path, start=start, end=end, **kwargs)


def breaking(url: str | Path, at: int = -1, **settings: Any) -> tuple[Place, BreakingDisk]:
    """Return a place on this disk that breaks at an operation, and the disk, which counts them."""
    place, disk = Place(str(url)), BreakingDisk(at, **settings)
    place.fs = disk
    place.is_local = False  # else files are read past the disk that breaks
    return place, disk


def rows_of(folder: Path, spare: Path) -> dict[str, list[Any]]:
    """Return every row of a run by table."""
    spare.mkdir(parents=True)
    with at_one_moment(folder, spare) as run:
        return {table: [row for rows in batches(run, table) for row in rows] for table in TABLES}


def files_of(folder: Path) -> dict[str, bytes]:
    """Return the files of a run by path, the store and what tells copies apart left out."""
    paths = [path for path in folder.rglob("*") if path.is_file()]
    names = {path.relative_to(folder).as_posix(): path for path in paths}
    out = ("run.db", "run.db-wal", "run.db-shm", COPIED_NAME)
    return {name: path.read_bytes() for name, path in names.items() if name not in out and not name.endswith(".lock")}


def tree_of(folder: Path) -> list[str]:
    """Return the names of everything in a folder and below."""
    paths = [os.path.join(place, name) for place, folders, files in os.walk(folder) for name in (*folders, *files)]
    return sorted(os.path.relpath(path, folder) for path in paths)
