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
