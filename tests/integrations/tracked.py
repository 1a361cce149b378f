"""A run that was stopped and resumed while four trackers were written to, and what their files hold of it."""

from __future__ import annotations

import signal
import sqlite3
import struct
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any
from unittest.mock import patch

from dynlora.config import RunConfig
from dynlora.store.reader import RunReader
from dynlora.training import run
from dynlora.training.progress_stream import Readings
from tests.tiny import tiny_config

TRACKERS = ("tensorboard", "trackio", "mlflow", "wandb")
"""Those that the extra `test` brings."""

STEPS, STOPPED_AT, EVALUATED = 12, 7, (0, 4, 8, 12)

Points = list[tuple[str, int, float]]
"""Name, step and value of every number that a tracker holds, doubles included."""


def config(model: Path, data: Path, to: tuple[str, ...] | None) -> RunConfig:
    """Return the config of the run."""
    log = {"every": 3, "eval_every": 4, "checkpoint_every": 50, "to": to}
    return tiny_config(model, data, train__steps=STEPS, log=log, strategy={"name": "dynamic", "gates": "off"})


def train_in_two(settings: RunConfig, runs_dir: Path) -> Path:
    """Train, stop after a step, resume; return the run's folder."""
    taken = iter(range(1, STOPPED_AT))

    def take(_: Readings) -> None:
        if next(taken, None) is None:
            signal.raise_signal(signal.SIGINT)

    with patch.object(Readings, "take", take):
        stopped = run.train(settings, runs_dir)
    assert stopped.state == "stopped"
    assert run.resume(runs_dir, stopped.folder.name).state == "finished"
    return stopped.folder


def stored(folder: Path) -> Points:
    """Return every number of the run store by the names that trackers know them by, sorted."""
    names = {"train": "train", "validation": "eval"}
    with RunReader(folder) as reader:
        return sorted(
            (f"{names[series.split]}/{series.name}", step, value)
            for series in reader.scalars()
            for step, value in zip(series.steps.tolist(), series.values.tolist(), strict=True)
        )


def numbers(points: Points) -> Points:
    """Return the numbers without those of families of modules, sorted."""
    return sorted(point for point in points if point[0].split("/")[0] in ("train", "eval"))


def in_tensorboard(folder: Path) -> Points:
    """Return what the event files of a folder hold."""
    return [
        (value.tag, event.step, value.simple_value)
        for event in events(folder)
        for value in event.summary.value
        if value.WhichOneof("value") == "simple_value"
    ]


def events(folder: Path) -> Iterator[Any]:
    """Yield all events of a folder with TensorBoard's own loader."""
    from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader

    from dynlora.integrations.trackers.tensorboard import Event

    for path in sorted(folder.glob("*tfevents*")):
        yield from map(Event.FromString, RawEventFileLoader(str(path)).Load())


def rows(path: Path, query: str) -> list[tuple[Any, ...]]:
    """Return the rows of a query on a database."""
    with sqlite3.connect(path) as connection:
        records = connection.execute(query).fetchall()
    connection.close()
    return records


def wandb_records(path: Path) -> Iterator[Any]:
    """Yield the records of a file of Weights & Biases: LevelDB's log, 32 KiB blocks of (crc, length, kind, part)."""
    record: Any = import_module("wandb.proto.wandb_internal_pb2").Record
    data, place, part = path.read_bytes(), 7, b""
    while place + 7 <= len(data):
        if 32768 - place % 32768 < 7:
            place += 32768 - place % 32768
            continue
        _, length, kind = struct.unpack("<IHB", data[place : place + 7])
        part += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # a whole record, or the last part of one
            yield record.FromString(part)
            part = b""
