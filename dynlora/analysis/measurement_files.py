"""Where what was measured on a trained adapter is kept: with its run, or in the user's cache if that is read-only."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path

from dynlora.assets.cache import cache_dir
from dynlora.safe_files import write_text
from dynlora.store.compressions import COMPRESS_NAME
from dynlora.store.knockouts import KNOCKOUT_NAME, Knockouts


def knockout_file(folder: Path) -> Path:
    """Return where a run's ablations are read: the user's cache where it holds some of the run, else with the run."""
    spare = _spare_file(folder)
    return spare if spare.exists() else folder / KNOCKOUT_NAME


def knockout_target(folder: Path, *, is_own: bool = True) -> Path:
    """Return where a run's ablations are written: with it, or in the user's cache where it is only to be read.

    What such a run came with is copied there first, so that it is gone on with and not hidden.

    Raises:
        OSError: when the cache cannot be written.
    """
    own, spare = folder / KNOCKOUT_NAME, _spare_file(folder)
    if is_own and os.access(folder, os.W_OK):
        return own if not spare.exists() else spare
    spare.parent.mkdir(parents=True, exist_ok=True)
    came = Knockouts.read(own)
    if came is not None and not spare.exists():
        came.write(spare)
    return spare


def compress_file(folder: Path) -> Path:
    """Return where the sizes of a run's adapter are read: the user's cache where it holds some, else with the run."""
    spare = _spare_file(folder, "compressions")
    return spare if spare.exists() else folder / COMPRESS_NAME


def compress_target(folder: Path, *, is_own: bool = True) -> Path:
    """Return where the sizes of a run's adapter are written: with it, or in the user's cache.

    Raises:
        OSError: when the cache cannot be written.
    """
    own, spare = folder / COMPRESS_NAME, _spare_file(folder, "compressions")
    if is_own and os.access(folder, os.W_OK) and not spare.exists():
        return own
    spare.parent.mkdir(parents=True, exist_ok=True)
    return spare


def keep_ranks(folder: Path, ranks: Mapping[str, int], parameters: int, *, is_own: bool = True) -> Path:
    """Write ranks by module where `strategy.ranks_from` of another run reads them, and return the file.

    Args:
        folder: of the run that they were found on.
        ranks: by module.
        parameters: that they come to; part of the file's name.
        is_own: whether the run may be written to.

    Raises:
        OSError: when it cannot be written.
    """
    place = compress_target(folder, is_own=is_own).with_name(f"{folder.name}-ranks-{parameters}.json")
    write_text(place, json.dumps(dict(ranks), indent=1) + "\n")
    return place


def _spare_file(folder: Path, kind: str = "knockouts") -> Path:
    place = hashlib.sha256(str(folder).encode()).hexdigest()[:12]
    return cache_dir() / kind / f"{folder.name}-{place}.json"
