"""Writing a run to trackers until it has ended: what `dynlora track` does, in a process of its own."""

from __future__ import annotations

import logging
import os
import re
import threading
import time
from collections.abc import Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import Any

from dynlora.addresses import hidden
from dynlora.analysis.config_fields import by_name, set_values
from dynlora.errors import DynloraError, RunBusyError, first_line
from dynlora.integrations.trackers.base import CAPACITY, FAMILIES_KEY, NAME_KEY, RUN_KEY, RunFacts, Tracker
from dynlora.integrations.trackers.feed import Batch, Feed, families
from dynlora.integrations.trackers.places import FOLDER, Place, place_of
from dynlora.jobs.spawn import own_folder
from dynlora.jobs.trackers import KNOWN
from dynlora.store import jsontext
from dynlora.store.connection import take_lock
from dynlora.store.meta import config as run_config
from dynlora.store.meta import moment, text
from dynlora.store.reader import RunReader
from dynlora.store.tracker_notes import LOCK_NAME, Written, forget_errors, read_trackers, write_trackers
from dynlora.viz.kit.rank_picture import rank_image


@contextmanager
def without_secrets_logged(addresses: Sequence[str]) -> Generator[None]:
    """A `with` block in which no record of any logger holds a secret of these addresses, tracebacks included."""
    made, formatter = logging.getLogRecordFactory(), logging.Formatter()

    def record(*arguments: Any, **of: Any) -> logging.LogRecord:
        entry = made(*arguments, **of)
        try:
            entry.msg, entry.args = hidden(entry.getMessage(), *addresses), None
        except (TypeError, ValueError):  # a record whose arguments do not fit says so where it is written
            return entry
        if entry.exc_info:
            entry.exc_text = hidden(formatter.formatException(entry.exc_info), *addresses)
        return entry

    logging.setLogRecordFactory(record)
    try:
        yield
    finally:
        logging.setLogRecordFactory(made)


logger = logging.getLogger(__name__)

POLL_S = 1.0
"""Seconds between two looks at a run that is written."""

NOTE_EVERY_S = 5.0
"""Seconds between two notes of how far a tracker is."""

_ID = re.compile(r"[0-9A-Za-z]{1,64}")
"""An id of a tracker's own making; what stands in a file beside the run may be anything."""

CLASSES = {"tensorboard": "TensorBoard", "trackio": "Trackio", "mlflow": "Mlflow", "wandb": "Wandb", "aim": "Aim"}
"""Class of each tracker, in the file of its name: only a tracker that is used is imported."""


def follow(folder: Path, names: Sequence[str], *, poll_s: float = POLL_S) -> dict[str, Written]:
    """Write a run to trackers until it has ended, and return what each of them has.

    One that fails is given no more, and the others go their way. While another process writes the run to trackers, this
    one waits, and then writes what is missing.

    Args:
        folder: of the run.
        names: of the trackers, each installed.
        poll_s: seconds between two looks at a run that is written.

    Raises:
        DynloraError: when the run cannot be read, or another process never lets go of it.
    """
    with _alone(folder):
        forget_errors(folder)
        places = {name: prepared(name, folder.parent) for name in names}
        notes = _Notes(folder)
        addresses = [place.address for place in places.values()]
        with without_secrets_logged(addresses), ThreadPoolExecutor(len(names)) as pool:
            jobs = [pool.submit(_Follower(folder, name, places[name], notes, poll_s).run) for name in names]
            for job in jobs:
                job.result()
    return {name: notes.of(name, places[name].public_address) for name in names}


def _alone(folder: Path) -> Any:
    """Take the lock of those who write a run to trackers, however long another holds it."""
    return take_lock(
        folder / LOCK_NAME,
        -1,
        link=f"run {folder.name}: {LOCK_NAME} is a link; dynlora does not follow links",
        busy=f"run {folder.name} is being written to trackers by another process",
    )


def prepared(name: str, runs_dir: Path) -> Place:
    """Return where a tracker keeps runs, its folder made and its library's variables set where the user has not."""
    place = place_of(name, runs_dir, os.environ)
    if place.is_own:
        own_folder(own_folder(runs_dir, FOLDER), name)
    for variable, value in place.variables.items():
        os.environ.setdefault(variable, value)
    return place


class _Notes:
    """What the trackers have, kept beside the run by whichever thread has news."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._guard = threading.Lock()
        self._known = read_trackers(folder)

    def of(self, name: str, address: str) -> Written:
        """Return what a tracker has; what it had elsewhere does not count."""
        note = self._known.get(name)
        return note if note is not None and note.place == address else Written(place=address)

    def put(self, name: str, written: Written) -> None:
        """Note what a tracker has; where the disk does not take it, it is noted later."""
        with self._guard, suppress(OSError):
            self._known = {**self._known, name: written}
            write_trackers(self._folder, self._known)


class _Follower:
    """One tracker of a run."""

    def __init__(self, folder: Path, name: str, place: Place, notes: _Notes, poll_s: float) -> None:
        self._folder, self._name, self._place, self._notes, self._poll_s = folder, name, place, notes, poll_s
        self._written = notes.of(name, place.public_address)
        self._next_note = 0.0

    def run(self) -> None:
        """Write until the run has ended; what goes wrong is noted and ends the writing."""
        try:
            self._follow()
        except Exception as error:  # of a library, a server or a disk: the others and the training are not concerned
            logger.exception("%s", KNOWN[self._name].title)
            reason = hidden(str(error), self._place.address)
            message = reason if isinstance(error, DynloraError) else first_line(error, reason)
            self._note(self._written.model_copy(update={"error": message}))

    def _follow(self) -> None:
        module = import_module(f"dynlora.integrations.trackers.{self._name}")
        tracker: Tracker = getattr(module, CLASSES[self._name])()
        first = self._wait_for(Feed(self._folder, None))
        facts, config = _facts(self._folder, self._place, self._written, first)
        last = tracker.start(facts, config)
        self._note(self._written.model_copy(update={"run": tracker.run, "step": last}))
        feed = Feed(self._folder, last)
        while True:
            batch = self._read(feed)
            for step in batch.steps:
                tracker.scalars(step.step, step.values)
                if step.ranks is not None:
                    title = f"Rank of each module after step {step.step:,}"
                    tracker.picture(step.step, CAPACITY, rank_image(batch.modules, step.ranks, title))
            if batch.steps:
                tracker.flush()
                self._progress(batch.steps[-1].step)
            if batch.is_last:
                break
            if not batch.is_cut:
                time.sleep(self._poll_s)
        tracker.finish(batch.status, batch.heartbeat)
        self._note(self._written)

    def _wait_for(self, feed: Feed) -> Batch:
        """Return the first steps of a run: with them its modules are known."""
        while not (batch := self._read(feed)).steps and not batch.is_last:
            if not batch.is_cut:
                time.sleep(self._poll_s)
        return batch

    def _read(self, feed: Feed) -> Batch:
        """Return the next steps; a run that is locked for long is asked again."""
        while True:
            with suppress(RunBusyError):
                return feed.read()
            time.sleep(self._poll_s)

    def _progress(self, step: int) -> None:
        """Note how far the tracker is, now or a little later."""
        self._written = self._written.model_copy(update={"step": step})
        if time.monotonic() >= self._next_note:
            self._next_note = time.monotonic() + NOTE_EVERY_S
            self._note(self._written)

    def _note(self, written: Written) -> None:
        self._written = written
        self._notes.put(self._name, written)


def _facts(folder: Path, place: Place, written: Written, first: Batch) -> tuple[RunFacts, Mapping[str, Any]]:
    """Return what a tracker is told of a run: paths of this machine by their last part."""
    with RunReader(folder) as reader:
        meta = reader.meta(["name", "created", "config"])
    name, created = text(meta.get("name")) or folder.name, moment(meta.get("created")) or 0.0
    known = written.run if _ID.fullmatch(written.run or "") else None
    facts = RunFacts(folder.name, name, created, place.address, place.project, known, written.step)
    settings = {key: _plain(value) for key, value in set_values(by_name(run_config(meta.get("config")))).items()}
    shapes = jsontext.dump(families(first.modules))
    return facts, {**settings, RUN_KEY: folder.name, NAME_KEY: name, FAMILIES_KEY: shapes}


def _plain(value: Any) -> Any:
    """Return a setting as trackers take it: a number, a truth value or a text."""
    return value if isinstance(value, bool | int | float | str) else jsontext.dump(value)
