"""The trackers of a run that trains: whether they can be used, and the process that writes to them meanwhile.

It reads the run store as a page does, so nothing of a tracker is in the process that trains: neither its library, nor
its threads, nor what it does when a server does not answer.
"""

from __future__ import annotations

import logging
import os
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

from dynlora.errors import ConfigError, CorruptRunError, DynloraError
from dynlora.jobs.environment import TOKEN_VARIABLE, import_path, python_command
from dynlora.jobs.spawn import adopt, spawn_logged
from dynlora.store.lifecycle import annotate
from dynlora.store.notes import forget_errors, read_trackers
from dynlora.store.reader import RunReader
from dynlora.store.schema import command_text

logger = logging.getLogger(__name__)

LOG_NAME = "trackers.log"
"""File of a run's folder that holds what the libraries of trackers print."""

LOOK_EVERY_S = 2.0
"""Seconds between two looks at whether something went wrong."""

WAIT_S = 60.0
"""Longest wait for trackers at the end of a run, seconds; they continue without anybody waiting."""

DROPPED = (TOKEN_VARIABLE, "RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
"""Variables that the process does not inherit: the token of the dashboard, and what makes it one of several."""


@dataclass(frozen=True)
class Known:
    """A tracker that runs can be written to.

    Attributes:
        title: its name, for people.
        needs: requirements of its library; the extra of the same name as the tracker brings them.
    """

    title: str
    needs: tuple[str, ...]


KNOWN: Mapping[str, Known] = {
    "tensorboard": Known("TensorBoard", ("tensorboard>=2.17",)),
    "trackio": Known("Trackio", ("trackio>=0.43",)),
    "mlflow": Known("MLflow", ("mlflow-skinny>=3.17", "sqlalchemy>=2", "alembic>=1.10")),
    "wandb": Known("Weights & Biases", ("wandb>=0.31",)),
    "aim": Known("Aim", ("aim>=3.29",)),
}
"""Every value of `log.to`."""


def check_trackers(names: Sequence[str] | None) -> None:
    """Refuse trackers whose library is not installed, before anything is trained.

    Raises:
        ConfigError: one sentence with the command that installs it.
    """
    for name in names or ():
        known = KNOWN[name]
        for need in map(Requirement, known.needs):
            try:
                version = metadata.version(need.name)
            except metadata.PackageNotFoundError:
                raise ConfigError(
                    f"log.to={name}: {known.title} is not installed; pip install 'dynlora[{name}]'"
                ) from None
            if not need.specifier.contains(version, prereleases=True):
                raise ConfigError(
                    f"log.to={name}: {need.name} {version} is older than dynlora can use; "
                    f"pip install --upgrade 'dynlora[{name}]'"
                )


class TrackerProcess:
    """The process that writes one run to its trackers; without any there is none."""

    def __init__(self, folder: Path) -> None:
        """Write the run of a folder, once `start` says to what."""
        self._folder = folder
        self._names: tuple[str, ...] = ()
        self._child: subprocess.Popen[bytes] | None = None
        self._told: set[str] = set()
        self._next_look = 0.0
        self._warn: Callable[[str], None] = logger.warning

    def start(self, names: Sequence[str] | None, warn: Callable[[str], None]) -> None:
        """Start to write to some trackers.

        Args:
            names: of them; none are none.
            warn: takes a sentence for each thing that goes wrong while the run trains.
        """
        self._names, self._warn = tuple(dict.fromkeys(names or ())), warn
        if not self._names:
            return
        try:
            forget_errors(self._folder)
            command = track_command(self._folder, self._names)
            self._child = spawn_logged(command, self._folder / LOG_NAME, _environment())
        except (OSError, CorruptRunError) as error:
            warn(f"log.to={','.join(self._names)}: nothing is written to trackers ({error}); training continues")

    def look(self) -> None:
        """Say what went wrong since the last look, each of it once."""
        if self._child is None or time.monotonic() < self._next_look:
            return
        self._next_look = time.monotonic() + LOOK_EVERY_S
        for message in self._news():
            self._warn(message)

    def wait(self, patience_s: float = WAIT_S) -> None:
        """Wait until the trackers have all of a run that has ended; what is missing is a warning of the run."""
        if self._child is None:
            return
        try:
            self._child.wait(patience_s)
        except subprocess.TimeoutExpired:
            slow = f"log.to={','.join(self._names)}: the trackers have not taken all steps in {patience_s:.0f} s"
            _tell(self._folder, f"{slow}; they are still being written to")
            adopt(self._child)
        for message in self._news():
            _tell(self._folder, message)

    def _news(self) -> Iterator[str]:
        """Yield a sentence for each tracker that is given no more and was not told of yet."""
        failed = {name: one.error for name, one in read_trackers(self._folder).items() if one.error}
        code = None if self._child is None else self._child.poll()
        if code:
            failed = {name: f"its process ended with code {code}, see {LOG_NAME}" for name in self._names} | failed
        for name in self._names:
            if name in failed and name not in self._told:
                self._told.add(name)
                again = command_text("track", self._folder.name, "--to", name, runs_dir=self._folder.parent)
                yield f"log.to={name}: {failed[name]}; training continues, and `{again}` writes the rest"


@contextmanager
def tracker_process(folder: Path) -> Iterator[TrackerProcess]:
    """Yield what writes a run to trackers, and wait for it after the block, when the run has ended."""
    process = TrackerProcess(folder)
    try:
        yield process
    finally:
        process.wait()


def track_command(folder: Path, names: Sequence[str]) -> list[str]:
    """Return the command that writes a run to trackers until it has ended."""
    base = python_command("dynlora", "track", folder.name, "--runs-dir", str(folder.parent))
    return [*base, "--to", ",".join(names)]


def _environment() -> dict[str, str]:
    """Return what the process inherits: all but `DROPPED`, because the settings of trackers are variables."""
    variables = {name: value for name, value in os.environ.items() if name not in DROPPED}
    return {**variables, **import_path(variables), "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}


def _tell(folder: Path, message: str) -> None:
    """Keep a warning with a run that has ended; where another process has it already, the log is enough."""
    logger.warning("run %s: %s", folder.name, message)
    with suppress(DynloraError, OSError):
        with RunReader(folder) as reader:
            step = reader.last_step()
        annotate(folder, events=[(step, "warning", {"message": message})])
