"""What people say of runs, kept beside them: tags and a note of each, saved searches, and what trackers were given.

They are not in `run.db` because that has one writer, the training process, and people tag runs while they train.
The file is as little trusted as the rest of a run: whatever cannot be read counts as no notes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import AfterValidator, Field

from dynlora.addresses import hidden, without_secrets
from dynlora.errors import ConfigError, CorruptRunError, SearchError
from dynlora.store.connection import take_lock
from dynlora.store.record import Count, Part, Record, Row, cut, one_line
from dynlora.store.search import MAX_LENGTH, parse
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


VIEWS_NAME = ".views.json"
VIEWS_LOCK = ".views.lock"
MAX_VIEWS = 30
MAX_NAME_LENGTH = 40
MAX_QUERY_LENGTH = 2 * MAX_LENGTH
"""Most characters of a saved search, all spaces counted."""

Folder = str | os.PathLike[str]


def _name(text: str) -> str:
    name = " ".join(clean_text(text).split())
    if not name or len(name) > MAX_NAME_LENGTH or not name.isprintable():
        raise ConfigError(f"view {text[:60]!r}: must be 1 to {MAX_NAME_LENGTH} printable characters; give another name")
    return name


def _query(text: str) -> str:
    query = clean_text(text).strip()
    if not query:
        raise SearchError(query, 1, "a view of all runs needs no name; enter a search first")
    if len(query) > MAX_QUERY_LENGTH:
        raise SearchError(query, MAX_QUERY_LENGTH, f"{len(query):,} characters are more than {MAX_QUERY_LENGTH:,}")
    parse(query)
    return query


def _as_saved(rule: Callable[[str], str]) -> AfterValidator:
    """Return what refuses a text of a file that could not have been saved like this."""

    def check(text: str) -> str:
        if rule(text) != text:
            raise ValueError("it breaks the rules of a view")
        return text

    return AfterValidator(check)


class View(Part):
    """A search with a name.

    Attributes:
        name: what people call it, each once.
        query: the search as it was typed.
    """

    name: Annotated[str, _as_saved(_name)]
    query: Annotated[str, _as_saved(_query)]


def _each_name_once(views: tuple[View, ...]) -> tuple[View, ...]:
    return tuple({view.name: view for view in reversed(views)}.values())[::-1]


class Views(Record):
    """The saved views of a runs folder, in the order they were made."""

    MAX_BYTES: ClassVar[int] = 262_144
    KEEPS_REST: ClassVar[bool] = True

    views: Annotated[Row[View], AfterValidator(_each_name_once), cut(MAX_VIEWS)] = ()


def read_views(runs_dir: Folder) -> tuple[View, ...]:
    """Return the saved views in the order they were made; none when there are none that can be read."""
    saved = Views.read(os.path.join(runs_dir, VIEWS_NAME))
    return () if saved is None else saved.views


def save_view(runs_dir: Folder, name: str, query: str) -> tuple[View, ...]:
    """Keep a search under a name, in place of one that has it, and return all views.

    Raises:
        ConfigError: when the name is empty or too long, or there would be too many.
        SearchError: when the search is empty or cannot be read.
        RunBusyError: when another process keeps changing the views.
        CorruptRunError: when a link is in the place of the file.
    """
    view = View(name=_name(name), query=_query(query))

    def saved(before: tuple[View, ...]) -> tuple[View, ...]:
        after = {one.name: one for one in before} | {view.name: view}
        if len(after) > MAX_VIEWS:
            raise ConfigError(f"view {view.name!r}: {len(after)} views are more than {MAX_VIEWS}; delete one first")
        return tuple(after.values())

    return _changed_views(Path(runs_dir), saved)


def delete_view(runs_dir: Folder, name: str) -> tuple[View, ...]:
    """Forget a view and return the others.

    Raises:
        ConfigError: when there is none of that name.
        RunBusyError: when another process keeps changing the views.
        CorruptRunError: when a link is in the place of the file.
    """

    def left(before: tuple[View, ...]) -> tuple[View, ...]:
        after = tuple(one for one in before if one.name != name)
        if len(after) == len(before):
            there = ", ".join(one.name for one in before) or "none"
            raise ConfigError(f"view {name[:60]!r}: there is no such view; the views are: {there}")
        return after

    return _changed_views(Path(runs_dir), left)


def _changed_views(runs_dir: Path, change: Callable[[tuple[View, ...]], tuple[View, ...]]) -> tuple[View, ...]:
    runs_dir.mkdir(parents=True, exist_ok=True)
    path = runs_dir / VIEWS_NAME
    lock = take_lock(
        runs_dir / VIEWS_LOCK,
        _BUSY_S,
        link=f"{VIEWS_LOCK} of the runs folder is a link; dynlora does not follow links",
        busy=f"the saved views have been busy for {_BUSY_S:.0f} s, try again",
    )
    try:
        if path.is_symlink():
            raise CorruptRunError(f"{VIEWS_NAME} of the runs folder is a link; dynlora does not follow links")
        after = change(read_views(runs_dir))
        Views(views=after).write(path)
    finally:
        lock.release()
    return after
