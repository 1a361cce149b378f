"""Whether the tour was taken: a small file in the runs folder, for everyone who looks at it; there are no accounts."""

from __future__ import annotations

import os
from pathlib import Path

from dynlora.safe_files import NotPlainFileError, read_plain, write_text

MARK_NAME = ".tour-taken"
_TEXT = "The tour of the dashboard was taken or hidden here. Delete this file to be offered it again.\n"


def is_tour_taken(runs_dir: str | os.PathLike[str]) -> bool:
    """Say whether the tour was taken or hidden in this runs folder; whatever cannot be read counts as not."""
    return read_plain(os.path.join(runs_dir, MARK_NAME), 1000) is not None


def mark_tour_taken(runs_dir: str | os.PathLike[str]) -> None:
    """Remember that the tour was taken or hidden.

    Raises:
        OSError: when the folder cannot be written to, or something else stands in the place of the file.
    """
    path = Path(runs_dir) / MARK_NAME
    if is_tour_taken(runs_dir):
        return
    if os.path.lexists(path) and (path.is_symlink() or not path.is_file()):
        raise NotPlainFileError(f"{MARK_NAME} of the runs folder is not a plain file")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, _TEXT)
