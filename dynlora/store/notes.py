"""Files beside `run.db`: tags and a note that people give a run, and what its trackers were given.

They are not in `run.db` because that has one writer, the training process, and people tag runs while they train.
The file is as little trusted as the rest of a run: whatever cannot be read counts as no notes.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import AfterValidator, Field

from dynlora.addresses import hidden, without_secrets
from dynlora.errors import ConfigError, CorruptRunError
from dynlora.store.connection import take_lock
from dynlora.store.record import Count, Part, Record, Row, cut, one_line
from dynlora.text import clean_text

NOTES_NAME = "notes.json"
LOCK_NAME = ".notes.lock"
MAX_TAGS = 20
MAX_TAG_LENGTH = 40
MAX_NOTE_LENGTH = 4000

_BUSY_S = 5.0


def _each_once(tags: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(tags))


_Tag = Annotated[str, cut(MAX_TAG_LENGTH), AfterValidator(str.strip), Field(min_length=1)]


class Notes(Record):
    """What people say about a run.

    Attributes:
        tags: short words, each once, in order.
        note: free text of any number of lines.
    """

    KEEPS_REST: ClassVar[bool] = True

    tags: Annotated[Row[_Tag], AfterValidator(_each_once), cut(MAX_TAGS)] = ()
    note: Annotated[str, cut(MAX_NOTE_LENGTH)] = ""


NO_NOTES = Notes()


def read_notes(folder: str | os.PathLike[str]) -> Notes:
    """Return the notes of a run; empty when there are none, or none that can be read."""
    return Notes.read(os.path.join(folder, NOTES_NAME)) or NO_NOTES


def annotate_notes(
    folder: str | os.PathLike[str], *, add: Iterable[str] = (), remove: Iterable[str] = (), note: str | None = None
) -> Notes:
    """Change the notes of a run and return them; a run may be tagged while it trains.

    Args:
        folder: folder of the run.
        add: tags to add; those that are there stay where they are.
        remove: tags to take away.
        note: new text; None keeps the old one, an empty one removes it.

    Raises:
        ConfigError: when a tag or the note is too long or empty, there would be too many tags, or one to be removed
            is not there.
        RunBusyError: when another process keeps changing the notes.
        CorruptRunError: when a link or no file is in its place.
    """
    path = Path(folder) / NOTES_NAME
    with _locked(path.with_name(LOCK_NAME)):
        if os.path.lexists(path) and (path.is_symlink() or not path.is_file()):
            raise CorruptRunError(f"run {path.parent.name}: {NOTES_NAME} is a link or no file; remove it")
        before = read_notes(folder)
        tags = _changed(before.tags, [_tag(tag) for tag in add], [_tag(tag) for tag in remove])
        after = Notes(tags=tags, note=before.note if note is None else _note(note))
        if after != before:
            after.write(path)
    return after


def _changed(tags: tuple[str, ...], add: list[str], remove: list[str]) -> tuple[str, ...]:
    for tag in remove:
        if tag not in tags:
            there = ", ".join(tags) or "none"
            raise ConfigError(f"--remove {tag}: the run has no such tag; its tags: {there}")
    after = tuple(dict.fromkeys([*(tag for tag in tags if tag not in remove), *add]))
    if len(after) > MAX_TAGS:
        raise ConfigError(f"--add {add[-1]}: {len(after)} tags are more than {MAX_TAGS} per run; remove some first")
    return after


def _tag(text: str) -> str:
    tag = " ".join(clean_text(text).split())
    if not tag or "," in tag or len(tag) > MAX_TAG_LENGTH or not tag.isprintable():
        raise ConfigError(
            f"tag {text[:60]!r}: must be 1 to {MAX_TAG_LENGTH} printable characters without a comma; give another"
        )
    return tag


def _note(text: str) -> str:
    note = clean_text(text).replace("\x00", "").strip()
    if len(note) > MAX_NOTE_LENGTH:
        raise ConfigError(f"--note: {len(note):,} characters are more than {MAX_NOTE_LENGTH:,}; shorten it")
    return note


@contextmanager
def _locked(path: Path) -> Generator[None]:
    run = path.parent.name
    lock = take_lock(
        path,
        _BUSY_S,
        link=f"run {run}: {path.name} is a link; dynlora does not follow links",
        busy=f"run {run}: its notes have been busy for {_BUSY_S:.0f} s, try again",
    )
    try:
        yield
    finally:
        lock.release()


TRACKERS_NAME = "trackers.json"
TRACKERS_LOCK = ".trackers.lock"


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
    notes = Trackers.read(folder / TRACKERS_NAME)
    return {} if notes is None else notes.trackers


def write_trackers(folder: Path, trackers: Mapping[str, Written]) -> None:
    """Keep what the trackers of a run have.

    Raises:
        OSError: when it cannot be written.
    """
    Trackers(trackers=dict(trackers)).write(folder / TRACKERS_NAME)


def forget_errors(folder: Path) -> None:
    """Forget what went wrong before: the trackers are tried again.

    Raises:
        OSError: when it cannot be written.
    """
    known = read_trackers(folder)
    if any(written.error for written in known.values()):
        write_trackers(folder, {name: written.model_copy(update={"error": None}) for name, written in known.items()})
