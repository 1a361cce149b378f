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
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from dynlora.addresses import hidden
from dynlora.analysis.planted_ranks import needed_modules, outlined
from dynlora.analysis.seed_groups import by_name, set_values
from dynlora.errors import DynloraError, RunBusyError, first_line
from dynlora.integrations.trackers.base import (
    CAPACITY,
    FAMILIES_KEY,
    FOLDER,
    IMPORTANCE,
    NAME_KEY,
    NAMES,
    RANK,
    RUN_KEY,
    Place,
    RunFacts,
    Tracker,
    place_of,
)
from dynlora.jobs.spawn import own_folder
from dynlora.jobs.trackers import KNOWN
from dynlora.store import jsontext
from dynlora.store.connection import take_lock
from dynlora.store.meta import config as run_config
from dynlora.store.meta import is_count, moment, section, text
from dynlora.store.notes import TRACKERS_LOCK, Written, forget_errors, read_trackers, write_trackers
from dynlora.store.reader import RunReader
from dynlora.store.rows import ModuleRow, Status
from dynlora.store.summary import run_summary
from dynlora.viz.kit.rank_picture import rank_image

WINDOW = 2000
"""Most steps that are read at once."""

OVER = ("finished", "stopped", "failed", "interrupted")
"""States in which nothing more is recorded."""


@dataclass
class Step:
    """What was recorded of one step: numbers by name and, at evaluations, the rank of each module."""

    step: int
    values: dict[str, float] = field(default_factory=dict[str, float])
    ranks: list[float] | None = None

    @property
    def is_evaluation(self) -> bool:
        """Whether the run was evaluated after the step."""
        return any(name.startswith(f"{NAMES['validation']}/") for name in self.values)


@dataclass(frozen=True)
class Batch:
    """Some steps in order, complete each.

    Attributes:
        steps: that hold anything.
        modules: of the run.
        is_last: whether nothing comes after it.
        is_cut: whether more can be read at once.
        status: of the run.
        heartbeat: last sign of life of the run, seconds since the epoch.
    """

    steps: list[Step]
    modules: list[ModuleRow]
    is_last: bool
    is_cut: bool
    status: str
    heartbeat: float


class Feed:
    """Reads a run from where a tracker is; each batch opens and closes the run's file."""

    def __init__(self, folder: Path, after: int | None) -> None:
        """Read the steps of a run after one, or all where it is None."""
        self._folder = folder
        self._next = 0 if after is None else after + 1

    def read(self) -> Batch:
        """Return the next steps that are complete; without any the batch is empty.

        Raises:
            DynloraError: when the run cannot be read.
        """
        with RunReader(self._folder) as reader:
            status, modules = reader.status(), reader.modules()
            end = _end(status)
            stop = self._next + WINDOW if end is None or self._next + WINDOW <= end else end
            is_tail = status.status in OVER and stop > status.step
            last = None if is_tail and end is None else stop
            steps = _steps(reader, self._next, last, modules, status.max_steps)
        self._next = max(self._next, stop)
        is_last = status.status in OVER and (last is None or end is not None and stop >= end)
        is_cut = not is_last and (end is None or stop < end)
        return Batch(steps, modules, is_last, is_cut, status.status, status.heartbeat)


def _end(status: Status) -> int | None:
    """Return the first step that may not be complete; None where all are.

    A step is complete when a later one is, because an evaluation is recorded after the step it belongs to. What was
    interrupted may be so in the middle of an evaluation; that step is recorded again when the run is resumed.
    """
    return None if status.status in OVER and status.status != "interrupted" else status.step


def _steps(reader: RunReader, start: int, stop: int | None, modules: Sequence[ModuleRow], max_steps: int) -> list[Step]:
    """Return what was recorded of the steps from `start` on and before `stop`."""
    by_step: dict[int, Step] = {}
    if stop is not None and stop <= start:
        return []
    for series in reader.scalars(start=start, stop=stop):
        name = f"{NAMES.get(series.split, series.split)}/{series.name}"
        for step, value in zip(series.steps.tolist(), series.values.tolist(), strict=True):
            by_step.setdefault(step, Step(step)).values[name] = value
    every = section(reader.meta(["config"]).get("config"), "log").get("every")
    every = every if is_count(every) and every else 1
    steps = {step for step, one in by_step.items() if one.is_evaluation or step % every == 0 or step == max_steps}
    _add_families(reader, by_step, steps, modules, (start, stop))
    return [by_step[step] for step in sorted(by_step)]


def _add_families(
    reader: RunReader,
    by_step: dict[int, Step],
    sent: set[int],
    modules: Sequence[ModuleRow],
    span: tuple[int, int | None],
) -> None:
    """Add what the families of modules hold to the steps that are wanted, and the ranks to evaluations."""
    known = set(reader.recorded())
    kind_of = np.array([module.kind for module in modules], dtype=object)
    kinds = {kind: kind_of == kind for kind in dict.fromkeys(kind_of)}
    for signal in (RANK, IMPORTANCE):
        if signal not in known or not kinds:
            continue
        steps, vectors = reader.signal(signal, *span)
        for step, vector in zip(steps.tolist(), vectors.astype(float), strict=True):
            if step not in sent or len(vector) != len(modules):
                continue
            whole = np.nansum(vector) if signal == IMPORTANCE else 1.0
            if signal == RANK and by_step[step].is_evaluation:
                by_step[step].ranks = vector.tolist()
            if whole > 0:
                sums = {f"{signal}/{kind}": float(np.nansum(vector[chosen]) / whole) for kind, chosen in kinds.items()}
                by_step[step].values |= sums


def families(modules: Sequence[ModuleRow]) -> dict[str, list[int]]:
    """Return number of modules, d_in and d_out of each family of modules; sizes are those of its first."""
    values: dict[str, list[int]] = {}
    for module in modules:
        values.setdefault(module.kind, [0, module.d_in, module.d_out])[0] += 1
    return values


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
        folder / TRACKERS_LOCK,
        -1,
        link=f"run {folder.name}: {TRACKERS_LOCK} is a link; dynlora does not follow links",
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
        about = run_summary(self._folder)
        while True:
            batch = self._read(feed)
            for step in batch.steps:
                tracker.scalars(step.step, step.values)
                if step.ranks is not None:
                    title = f"Rank of each module after step {step.step:,}. {outlined(about)}".strip(". ")
                    image = rank_image(batch.modules, step.ranks, title, needed=needed_modules(about))
                    tracker.picture(step.step, CAPACITY, image)
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
