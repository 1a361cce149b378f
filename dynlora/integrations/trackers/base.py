"""What a tracker of ours can do, what it is told of a run, and where each tracker keeps runs."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from dynlora.addresses import without_secrets

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


FOLDER = ".trackers"
"""Folder of a runs folder that holds the files of trackers."""

PROJECT = "dynlora"
"""Name of the project or experiment unless a variable of the tracker says another."""


@dataclass(frozen=True)
class Place:
    """Where a tracker keeps runs.

    Attributes:
        address: a folder, or an address such as a database or a server; for the tracker's library alone.
        project: name of the project or experiment.
        view: command that shows the runs; empty where a server does.
        variables: of the tracker's library, for the process that writes, where the user has not set them.
        is_own: whether it is in the runs folder.
    """

    address: str
    project: str = PROJECT
    view: str = ""
    variables: Mapping[str, str] = field(default_factory=dict[str, str])
    is_own: bool = False

    @property
    def public_address(self) -> str:
        """The address as it may be shown and stored: without what is secret of it."""
        return without_secrets(self.address)


def place_of(name: str, runs_dir: Path, environment: Mapping[str, str]) -> Place:
    """Return where a tracker keeps the runs of a runs folder.

    Args:
        name: of the tracker.
        runs_dir: folder of the runs, absolute.
        environment: variables of the user.
    """
    return _PLACES[name](runs_dir / FOLDER / name, environment)


def _folder(variable: str, own: Path, environment: Mapping[str, str]) -> tuple[str, bool]:
    """Return the folder that a variable names, else the own one, and whether it is that."""
    named = environment.get(variable)
    return (os.path.abspath(Path(os.path.expanduser(named))), False) if named else (str(own), True)


def _tensorboard(own: Path, environment: Mapping[str, str]) -> Place:
    address, is_own = _folder("TENSORBOARD_LOGGING_DIR", own, environment)
    return Place(address, view=f"tensorboard --logdir {shlex.quote(address)}", is_own=is_own)


def _trackio(own: Path, environment: Mapping[str, str]) -> Place:
    folder, is_own = _folder("TRACKIO_DIR", own, environment)
    project = environment.get("TRACKIO_PROJECT") or PROJECT
    variables = {"TRACKIO_DIR": folder, "GRADIO_ANALYTICS_ENABLED": "False"}
    if not environment.get("TRACKIO_SPACE_ID"):
        variables["HF_HUB_OFFLINE"] = "1"  # else each run asks the hub who is logged in
    view = f"TRACKIO_DIR={shlex.quote(folder)} trackio show --project {shlex.quote(project)}"
    return Place(folder, project, view, variables, is_own)


def _mlflow(own: Path, environment: Mapping[str, str]) -> Place:
    named = environment.get("MLFLOW_TRACKING_URI")
    address = named or f"sqlite:///{own / 'mlflow.db'}"
    variables = {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true", "GIT_PYTHON_REFRESH": "quiet"}
    store = shlex.quote(address) if without_secrets(address) == address else '"$MLFLOW_TRACKING_URI"'
    view = f"mlflow ui --backend-store-uri {store}" if not address.startswith("http") else ""
    return Place(address, environment.get("MLFLOW_EXPERIMENT_NAME") or PROJECT, view, variables, not named)


def _wandb(own: Path, environment: Mapping[str, str]) -> Place:
    folder, is_own = _folder("WANDB_DIR", own, environment)
    mode = environment.get("WANDB_MODE") or "offline"
    variables = {
        "WANDB_DIR": folder,
        "WANDB_MODE": mode,
        "WANDB_ERROR_REPORTING": "false",
        "WANDB_SILENT": "true",
        "WANDB_CONSOLE": "off",
        "WANDB_DISABLE_GIT": "true",
        "WANDB_DISABLE_CODE": "true",
        "WANDB_CACHE_DIR": str(Path(folder) / "cache"),
    }
    view = f"wandb sync {shlex.quote(folder)}/wandb/offline-run-*" if mode == "offline" else ""
    return Place(folder, environment.get("WANDB_PROJECT") or PROJECT, view, variables, is_own)


def _aim(own: Path, environment: Mapping[str, str]) -> Place:
    folder, is_own = _folder("AIM_REPO", own, environment)
    return Place(folder, view=f"aim up --repo {shlex.quote(folder)}", is_own=is_own)


_PLACES = {"tensorboard": _tensorboard, "trackio": _trackio, "mlflow": _mlflow, "wandb": _wandb, "aim": _aim}
