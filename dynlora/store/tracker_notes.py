"""Where the trackers of a run keep what they were given: `trackers.json` beside `run.db`.

It is no part of `run.db`, which has one writer, the training process; another process writes to the trackers. It is as
little trusted as the rest of a run: what cannot be read counts as nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import AfterValidator, Field

from dynlora.addresses import hidden, without_secrets
from dynlora.store.record import Count, Part, Record, one_line

NOTES_NAME = "trackers.json"
LOCK_NAME = ".trackers.lock"


class Written(Part):
    """What a tracker has of a run.

    Attributes:
        place: a folder or an address, without what is secret of it.
        run: the tracker's own name or id of the run; None before it has one.
        step: last step that it was given; None before the first.
        error: one sentence that says why it is given no more; None while it is.
    """

    place: Annotated[str, one_line(500), AfterValidator(without_secrets)]
    run: Annotated[str, one_line(200)] | None = None
    step: Count | None = None
    error: Annotated[str, one_line(500), AfterValidator(lambda text: hidden(text))] | None = None


class Trackers(Record):
    """What the trackers of a run have, by the name of the tracker."""

    VERSION: ClassVar[int] = 1

    trackers: dict[Annotated[str, one_line(40)], Written] = Field(max_length=16)


def read_trackers(folder: Path) -> dict[str, Written]:
    """Return what the trackers of a run have, by the name of the tracker; empty when nothing is known."""
    notes = Trackers.read(folder / NOTES_NAME)
    return {} if notes is None else notes.trackers


def write_trackers(folder: Path, trackers: Mapping[str, Written]) -> None:
    """Keep what the trackers of a run have.

    Raises:
        OSError: when it cannot be written.
    """
    Trackers(trackers=dict(trackers)).write(folder / NOTES_NAME)


def forget_errors(folder: Path) -> None:
    """Forget what went wrong before: the trackers are tried again.

    Raises:
        OSError: when it cannot be written.
    """
    known = read_trackers(folder)
    if any(written.error for written in known.values()):
        write_trackers(folder, {name: written.model_copy(update={"error": None}) for name, written in known.items()})
