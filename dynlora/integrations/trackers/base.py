"""What a tracker of ours can do, and what it is told of a run."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Protocol


def _messages(name: str) -> Any:
    return import_module(f"tensorboard.{name}_pb2")


_events, _plugin = _messages("compat.proto.event"), _messages("plugins.hparams.plugin_data")

Event, SessionLog, Summary = _events.Event, _events.SessionLog, _messages("compat.proto.summary").Summary
HParamsPluginData = _plugin.HParamsPluginData
SessionStartInfo, SessionEndInfo = _plugin.SessionStartInfo, _plugin.SessionEndInfo
DecodeError = import_module("google.protobuf.message").DecodeError
Status = _messages("plugins.hparams.api").Status


CAPACITY = "capacity/ranks"
"""Name of the picture: the rank of each module, layers by kinds."""

NAMES = {"train": "train", "validation": "eval"}
"""Splits of the run store, and what trackers know them by: the first part of a name."""

RANK, IMPORTANCE = "rank", "importance"
"""First part of the names of what families of modules hold: the sum of their ranks, their fraction of importance."""

OURS = "dynlora."
"""How settings, or tags, begin that only an import reads."""

RUN_KEY = f"{OURS}run"
"""Key that holds the id of a run in the run store."""

NAME_KEY = f"{OURS}name"
"""Key that holds the name of a run, where the tracker has another form of it."""

FAMILIES_KEY = f"{OURS}families"
"""Key that holds families of modules as JSON: number of modules, d_in, d_out."""


@dataclass(frozen=True)
class RunFacts:
    """What a tracker is told of a run before it is given any number.

    Attributes:
        id: in the run store.
        name: for people.
        created: seconds since the epoch.
        address: where the tracker keeps runs.
        project: of the tracker, in which the run is.
        known: the tracker's own id of the run where it has one from before; else None.
        step: last step that the tracker was given before; None without one.
    """

    id: str
    name: str
    created: float
    address: str
    project: str
    known: str | None = None
    step: int | None = None

    @property
    def unique_name(self) -> str:
        """The name with the end of the id, for trackers that know runs by their names alone, also as a folder."""
        words = re.sub(r"[^\w ,=·-]+", "-", self.name)[:80]
        return f"{words} · {self.id.rpartition('-')[2]}"


def plain_name(name: str) -> str:
    """Return the name of a series in characters that every tracker takes, without empty parts."""
    parts = (re.sub(r"[^A-Za-z0-9_. -]", "_", part).strip(".") for part in name.split("/"))
    return "/".join(filter(None, parts)) or "unnamed"


class Tracker(Protocol):
    """Takes what a run recorded, step after step. Whatever it raises ends the writing, never the training.

    Attributes:
        run: the tracker's own name or id of the run, once it has started.
    """

    run: str

    def start(self, facts: RunFacts, config: Mapping[str, Any]) -> int | None:
        """Begin a run, or continue it where it is known.

        Args:
            facts: of the run.
            config: its settings by dotted key.

        Returns:
            The last step that the tracker holds, so that none is given twice; None for none.
        """
        ...

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Take all numbers of one step, by name; steps rise."""

    def picture(self, step: int, name: str, png: bytes) -> None:
        """Take a picture of the step whose numbers came last."""

    def flush(self) -> None:
        """Write what was given, so that readers see it."""

    def finish(self, status: str, ended: float) -> None:
        """End the run.

        Args:
            status: finished, failed, stopped or interrupted.
            ended: when it was, seconds since the epoch.
        """
