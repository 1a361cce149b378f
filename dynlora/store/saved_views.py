"""Saved views: searches with a name, kept in `.views.json` of the runs folder for everyone who looks at it.

The file is trusted as little as a run: whatever cannot be read counts as no views.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

from dynlora.errors import ConfigError, CorruptRunError, SearchError
from dynlora.safe_files import read_plain, write_text
from dynlora.store import jsontext
from dynlora.store.connection import take_lock
from dynlora.store.search import MAX_LENGTH, parse

VIEWS_NAME = ".views.json"
LOCK_NAME = ".views.lock"
MAX_VIEWS = 30
MAX_NAME_LENGTH = 40
MAX_QUERY_LENGTH = 2 * MAX_LENGTH
"""Most characters of a saved search, all spaces counted."""

MAX_VIEWS_BYTES = 262_144

_BUSY_S = 5.0
Folder = str | os.PathLike[str]


@dataclass(frozen=True)
class View:
    """A search with a name.

    Attributes:
        name: what people call it, each once.
        query: the search as it was typed.
    """

    name: str
    query: str


def read_views(runs_dir: Folder) -> tuple[View, ...]:
    """Return the saved views in the order they were made; none when there are none that can be read."""
    text = read_plain(os.path.join(runs_dir, VIEWS_NAME), MAX_VIEWS_BYTES)
    if text is None:
        return ()
    try:
        items = jsontext.load_object(text).get("views")
    except CorruptRunError:
        return ()
    found: dict[str, View] = {}
    for item in cast(list[Any], items)[: 10 * MAX_VIEWS] if isinstance(items, list) else []:
        view = _sound(item)
        if view is not None:
            found.setdefault(view.name, view)
    return tuple(found.values())[:MAX_VIEWS]


def save_view(runs_dir: Folder, name: str, query: str) -> tuple[View, ...]:
    """Keep a search under a name, in place of one that has it, and return all views.

    Raises:
        ConfigError: when the name is empty or too long, or there would be too many.
        SearchError: when the search is empty or cannot be read.
        RunBusyError: when another process keeps changing the views.
        CorruptRunError: when a link stands in the place of the file.
    """
    view = View(_name(name), _query(query))

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
        CorruptRunError: when a link stands in the place of the file.
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
        document = {"views": [asdict(view) for view in after]}
        write_text(path, json.dumps(document, ensure_ascii=False, indent=1) + "\n")
    finally:
        lock.release()
    return after


def _name(text: str) -> str:
    name = " ".join(jsontext.clean_text(text).split())
    if not name or len(name) > MAX_NAME_LENGTH or not name.isprintable():
        raise ConfigError(f"view {text[:60]!r}: must be 1 to {MAX_NAME_LENGTH} printable characters; give another name")
    return name


def _query(text: str) -> str:
    query = jsontext.clean_text(text).strip()
    if not query:
        raise SearchError(query, 1, "a view of all runs needs no name; enter a search first")
    if len(query) > MAX_QUERY_LENGTH:
        raise SearchError(query, MAX_QUERY_LENGTH, f"{len(query):,} characters are more than {MAX_QUERY_LENGTH:,}")
    parse(query)
    return query


def _sound(item: Any) -> View | None:
    """Return a view of a file that anyone may have written, when it keeps the rules of one that was saved here."""
    found = cast(dict[str, Any], item) if isinstance(item, dict) else {}
    name, query = found.get("name"), found.get("query")
    if not isinstance(name, str) or not isinstance(query, str):
        return None
    try:
        view = View(_name(name), _query(query))
    except ConfigError:
        return None
    return view if view == View(name, query) else None
