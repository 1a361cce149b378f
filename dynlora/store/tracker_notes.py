"""Where the trackers of a run keep what they were given: `trackers.json` beside `run.db`.

It is no part of `run.db`, which has one writer, the training process; another process writes to the trackers. It is as
little trusted as the rest of a run: what cannot be read counts as nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from dynlora.addresses import hidden, without_secrets
from dynlora.plain_text import printable
from dynlora.safe_files import write_text
from dynlora.store.meta import table
from dynlora.store.plain_values import count, read_checked

NOTES_NAME = "trackers.json"
LOCK_NAME = ".trackers.lock"
FORMAT = 1
MAX_BYTES = 65_536
MAX_TRACKERS = 16


@dataclass(frozen=True)
class Written:
    """What a tracker has of a run.

    Attributes:
        place: a folder or an address, without what is secret of it.
        run: the tracker's own name or id of the run; None before it has one.
        step: last step that it was given; None before the first.
        error: one sentence that says why it is given no more; None while it is.
    """

    place: str
    run: str | None = None
    step: int | None = None
    error: str | None = None


def read_trackers(folder: Path) -> dict[str, Written]:
    """Return what the trackers of a run have, by the name of the tracker; empty when nothing is known."""
    return read_checked(folder / NOTES_NAME, MAX_BYTES, _checked) or {}


def write_trackers(folder: Path, trackers: Mapping[str, Written]) -> None:
    """Keep what the trackers of a run have.

    Raises:
        OSError: when it cannot be written.
    """
    values = {name: asdict(written) for name, written in trackers.items()}
    write_text(folder / NOTES_NAME, json.dumps({"format": FORMAT, "trackers": values}, indent=1) + "\n")


def forget_errors(folder: Path) -> None:
    """Forget what went wrong before: the trackers are tried again.

    Raises:
        OSError: when it cannot be written.
    """
    known = read_trackers(folder)
    if any(written.error for written in known.values()):
        write_trackers(folder, {name: replace(written, error=None) for name, written in known.items()})


def _checked(found: Mapping[str, Any]) -> dict[str, Written]:
    """Return the content of the file, each value of its kind.

    Raises:
        ValueError, KeyError: when one is not.
    """
    trackers = table(found["trackers"])
    if found["format"] != FORMAT or len(trackers) > MAX_TRACKERS:
        raise ValueError("another format")
    return {printable(name, 40): _one(table(value)) for name, value in trackers.items()}


def _one(found: Mapping[str, Any]) -> Written:
    run, step, error = (found[key] for key in ("run", "step", "error"))
    return Written(
        without_secrets(printable(found["place"], 500)), None if run is None else printable(run, 200),
        None if step is None else count(step), None if error is None else hidden(printable(error, 500)),
    )  # fmt: skip
