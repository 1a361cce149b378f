"""Saved views: searches with a name, kept in `.views.json` of the runs folder for everyone who looks at it.

The file is trusted as little as a run: whatever cannot be read counts as no views.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import AfterValidator

from dynlora.errors import ConfigError, CorruptRunError, SearchError
from dynlora.store.connection import take_lock
from dynlora.store.record import Part, Record, Row, cut
from dynlora.store.search import MAX_LENGTH, parse
from dynlora.text import clean_text

VIEWS_NAME = ".views.json"
LOCK_NAME = ".views.lock"
MAX_VIEWS = 30
MAX_NAME_LENGTH = 40
MAX_QUERY_LENGTH = 2 * MAX_LENGTH
"""Most characters of a saved search, all spaces counted."""

_BUSY_S = 5.0
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

    return _changed(Path(runs_dir), saved)


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

    return _changed(Path(runs_dir), left)


def _changed(runs_dir: Path, change: Callable[[tuple[View, ...]], tuple[View, ...]]) -> tuple[View, ...]:
    runs_dir.mkdir(parents=True, exist_ok=True)
    path = runs_dir / VIEWS_NAME
    lock = take_lock(
        runs_dir / LOCK_NAME,
        _BUSY_S,
        link=f"{LOCK_NAME} of the runs folder is a link; dynlora does not follow links",
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
