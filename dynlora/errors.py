"""The errors a user can meet; each message names the argument, its value, the rule and the remedy."""

from __future__ import annotations


class DynloraError(Exception):
    """Base of every error dynlora raises on purpose; its text is shown to the user as it is."""


class ConfigError(DynloraError, ValueError):
    """A setting cannot be used: wrong key, type, range or combination."""


class UnknownStrategyError(ConfigError):
    """No strategy is registered under that name."""


class AssetError(DynloraError):
    """A model or data set could not be found, fetched or verified."""


class DataError(DynloraError, ValueError):
    """The data cannot be read or does not fit the task."""


class RunNotFoundError(DynloraError, KeyError):
    """No run with that id lies in the runs folder."""

    def __str__(self) -> str:
        """Return the message as written; `KeyError` would show its repr."""
        return str(self.args[0]) if self.args else ""


class CorruptRunError(DynloraError):
    """A run folder holds something that cannot be read, or was not written by dynlora."""


class RunBusyError(DynloraError):
    """Another process is writing this run."""


class StorageError(DynloraError):
    """What has to be kept cannot be written: the disk is full, read-only, or the folder is gone."""


class NotMergeableError(DynloraError):
    """This adapter cannot be folded into the base weights."""


class AdapterError(DynloraError, ValueError):
    """A folder holds no PEFT adapter that can be read, or is not what it says it is."""


_SHOWN = 64  # characters of a search around the place of a mistake


class SearchError(ConfigError):
    """A search cannot be read, or names a field that no run has.

    Attributes:
        column: where, counted from 1; one past the last character when something is missing there.
        picture: the search and, below, a caret at the column; two lines.
    """

    def __init__(self, text: str, column: int, problem: str) -> None:
        super().__init__(f"search, column {column}: {problem}")
        self.column = column
        self.picture = _picture(text, column - 1)


def _picture(text: str, place: int) -> str:
    """Return the part of a text around a place, and a caret below it."""
    printable = "".join(character if character.isprintable() else " " for character in text)
    start = max(0, place - _SHOWN // 2)
    before, after = "…" if start else "", "…" if len(text) > start + _SHOWN else ""
    return f"{before}{printable[start : start + _SHOWN]}{after}\n{' ' * (len(before) + place - start)}^"
