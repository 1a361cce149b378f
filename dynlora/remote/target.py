"""Where runs may be sent: never to where runs are trained, and nothing is removed there but what was sent."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from dynlora.errors import ConfigError
from dynlora.remote.manifest import LIMITS, SHORT
from dynlora.remote.place import Place
from dynlora.store.schema import DB_NAME

_NAMES = "|".join(
    re.escape(str(path.with_name(f"{path.stem}-#{path.suffix}"))).replace("\\#", f"[0-9a-f]{{{SHORT}}}")
    for path in map(PurePosixPath, LIMITS)
)
_SENT = re.compile(rf"(?:{_NAMES})(?:\.[0-9a-f]{{8}}\.part)?|manifest\.json\.[0-9a-f]{{8}}\.part")
"""Every name under which a file of a run is sent, or was being sent when that broke."""


def may_be_sent(names: Iterable[str]) -> set[str]:
    """Return those of the names below a run that a push can have made; the rest is somebody else's."""
    return {name for name in names if _SENT.fullmatch(name)}


def holds_run(folder: Path) -> bool:
    """Say whether a run is trained in a folder; one that was sent has no store of its own."""
    return os.path.lexists(folder / DB_NAME)


def _folders(folder: Path) -> list[Path]:
    try:
        return [Path(entry.path) for entry in os.scandir(folder) if entry.is_dir()]
    except OSError:
        return []


def check_target(place: Place, runs_dir: Path) -> None:
    """Refuse a place that runs cannot be sent to, before anything is looked at or sent.

    Args:
        place: folder of runs that some are to be sent to.
        runs_dir: folder that they are sent from.

    Raises:
        ConfigError: when runs are trained there, or nothing can be written there.
    """
    if place.is_web:
        raise ConfigError(f"URL {place.shown}: is read only; send runs to a folder or a bucket")
    if not place.is_local:
        return
    target = Path(os.path.realpath(place.root))
    inside = next((folder for folder in (target, *target.parents) if holds_run(folder)), None)
    if inside is not None:
        raise ConfigError(f"URL {place.shown}: is in the folder of the run {inside.name}; give a folder of its own")
    if target == Path(os.path.realpath(runs_dir)) or any(holds_run(entry) for entry in _folders(target)):
        raise ConfigError(
            f"URL {place.shown}: is a folder that runs are trained in; give another one, such as {place.shown}-sent"
        )
