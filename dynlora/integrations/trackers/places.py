"""Where each tracker keeps runs, and what is set of its library before it is imported.

A tracker's own variables decide; else its files are in `.trackers` of the runs folder, where one viewer shows all runs.
Nothing leaves the machine unless a variable of the user's says so: telemetry is off, Weights & Biases is offline.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from dynlora.addresses import without_secrets

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
