"""Runs of TensorBoard: event files, read record by record with the library's own messages, without its server."""

from __future__ import annotations

import json
import os
import struct
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c
from tensorboard.plugins.hparams import metadata as hparams
from tensorboard.util.tensor_util import make_ndarray

from dynlora.errors import DataError
from dynlora.integrations.tracker_files.import_runs import MAX_RUNS, TrackerRun
from dynlora.integrations.trackers.tensorboard import DecodeError, Event, HParamsPluginData, SessionLog, Status
from dynlora.safe_files import NotPlainFileError, open_plain
from dynlora.text import printable

MAX_RECORD_BYTES = 64 * 2**20
"""Largest record that is read: pictures are records too."""

MAX_READ_BYTES = 2**20
"""Largest record that is looked into: numbers are far smaller, and messages take many times their bytes."""

PATIENCE_S, MOST_S = 120.0, 1800.0
"""Longest time of the files of one run, and of all: they may be made to be read for ever."""

CHECKED_BYTES = 65_536
"""Largest record whose checksum is computed: numbers are far smaller, and in Python it takes long for pictures."""

MAX_FILE_BYTES = 16 * 2**30
MAX_FOLDERS = 20_000
"""Most folders that are looked into."""

STATUS = {Status.STATUS_FAILURE: "failed", Status.STATUS_UNKNOWN: "stopped", Status.STATUS_RUNNING: "stopped"}
ARGUMENTS = "args/text_summary"
"""Name under which transformers' Trainer writes its arguments, as JSON."""


def tensorboard_runs(folder: Path) -> Iterator[TrackerRun]:
    """Return the runs below a folder, each read when it is asked for: a folder that holds event files is one.

    Raises:
        DataError: when there are none, or, while they are read, when that takes too long.
    """
    files = [folder] if folder.is_file() else sorted(_event_files(folder))
    if not files:
        raise DataError(f"{folder}: it holds no event files of TensorBoard (*tfevents*); give another folder")
    top = folder.parent if folder.is_file() else folder
    by_folder: dict[Path, list[Path]] = {}
    for path in files:
        by_folder.setdefault(path.parent, []).append(path)
    return _runs(folder, top, list(by_folder.items())[:MAX_RUNS])


def _runs(folder: Path, top: Path, by_folder: Sequence[tuple[Path, list[Path]]]) -> Iterator[TrackerRun]:
    """Yield runs with numbers, and those that something was left out of, one in memory at a time."""
    end = time.monotonic() + MOST_S
    for place, files in by_folder:
        if time.monotonic() > end:
            raise DataError(f"{folder}: it takes longer than {MOST_S:,.0f} s; import its folders one by one")
        run = _run(place, top, files)
        if run.series or run.notes:
            yield run


def _event_files(folder: Path) -> Iterator[Path]:
    """Yield the event files below a folder; links are not followed."""
    for number, (place, _, names) in enumerate(os.walk(folder, followlinks=False)):
        if number >= MAX_FOLDERS:
            return
        yield from (Path(place) / name for name in names if "tfevents" in name)


def _run(folder: Path, top: Path, files: list[Path]) -> TrackerRun:
    """Return the run of a folder; of several numbers of a step the one that was written last counts."""
    name = folder.relative_to(top).as_posix() if folder != top else folder.absolute().name
    record = TrackerRun(str(folder.absolute()), printable(name, 200))
    end = time.monotonic() + PATIENCE_S
    for path in files:
        try:
            for event in _events(path):
                _take(record, event)
                if time.monotonic() > end:
                    record.notes.append(f"{path.name} takes longer than {PATIENCE_S:.0f} s, and the rest is left out")
                    return record
        except _Damaged as error:
            record.notes.append(f"{path.name} is damaged after {error} bytes, and the rest of it is left out")
        except NotPlainFileError:
            record.notes.append(f"{path.name} is a link or no regular file and is left out")
        except OSError as error:
            record.notes.append(f"{path.name} cannot be read ({error.strerror}) and is left out")
    return record


class _Damaged(Exception):
    """A record is not what its checksum says."""


def _events(path: Path) -> Iterator[Any]:
    """Yield the events of a file; a last one that is not complete is being written."""
    file, size = open_plain(path)
    with file:
        if size > MAX_FILE_BYTES:
            raise _Damaged(0)
        while (record := _record(file, size)) is not None:
            try:
                yield Event.FromString(record)
            except DecodeError:
                raise _Damaged(file.tell()) from None


def _record(file: BinaryIO, size: int) -> bytes | None:
    """Return the next record, None at the end: length, its checksum, the record, its checksum.

    One that is too large to hold numbers is passed over, and empty.
    """
    place, head = file.tell(), file.read(12)
    if len(head) < 12:
        return None
    length, crc = struct.unpack("<QI", head)
    if masked_crc32c(head[:8]) != crc or length > MAX_RECORD_BYTES:
        raise _Damaged(place)
    if length > MAX_READ_BYTES:
        return b"" if file.seek(length + 4, os.SEEK_CUR) <= size else None
    record, tail = file.read(length), file.read(4)
    if len(tail) < 4:
        return None
    if length <= CHECKED_BYTES and masked_crc32c(record) != struct.unpack("<I", tail)[0]:
        raise _Damaged(place)
    return record


def _take(record: TrackerRun, event: Any) -> None:
    """Keep what an event says."""
    if event.wall_time > 0 and (not record.created or event.wall_time < record.created):
        record.created = event.wall_time
    if event.HasField("session_log") and event.session_log.status == SessionLog.START and event.step > 0:
        _begin_again(record, event.step)
    for value in event.summary.value:
        plugin = value.metadata.plugin_data
        if plugin.plugin_name == hparams.PLUGIN_NAME:
            _take_session(record, plugin.content)
        elif value.WhichOneof("value") == "simple_value":
            record.add(value.tag, event.step, value.simple_value)
        elif value.tag == ARGUMENTS:
            _take_arguments(record, value)
        elif plugin.plugin_name == "scalars" or value.tag in record.series:  # the first of a name says whose it is
            _take_tensor(record, event.step, value)


def _begin_again(record: TrackerRun, first: int) -> None:
    """Forget the numbers from a step on: training was resumed there."""
    for series in record.series.values():
        for step in [step for step in series if step >= first]:
            del series[step]


def _take_tensor(record: TrackerRun, step: int, value: Any) -> None:
    """Keep a number in the form of TensorFlow 2."""
    if any(dim.size != 1 for dim in value.tensor.tensor_shape.dim):  # it may say a size that fills the memory
        return
    with suppress(ValueError, TypeError, IndexError):
        array = make_ndarray(value.tensor)
        if array.size == 1:
            record.add(value.tag, step, float(array.reshape(())))


def _take_arguments(record: TrackerRun, value: Any) -> None:
    """Keep the arguments of transformers' Trainer."""
    with suppress(ValueError, IndexError, RecursionError):
        values = json.loads(value.tensor.string_val[0])
        if isinstance(values, dict):
            record.take_params(values)


def _take_session(record: TrackerRun, content: bytes) -> None:
    """Keep settings, start and end of a run as the table of runs has them."""
    with suppress(DecodeError):
        data = HParamsPluginData.FromString(content)
        start = data.session_start_info
        if data.HasField("session_start_info"):
            record.take_params({key: _plain(value) for key, value in start.hparams.items()})
            record.created = start.start_time_secs or record.created
            record.status = "stopped"
        if data.HasField("session_end_info"):
            record.status = STATUS.get(data.session_end_info.status, "finished")


def _plain(value: Any) -> Any:
    """Return a protobuf value of any kind; whole numbers as such."""
    if value.WhichOneof("kind") == "number_value":
        return int(value.number_value) if value.number_value.is_integer() else value.number_value
    return value.bool_value if value.WhichOneof("kind") == "bool_value" else value.string_value
