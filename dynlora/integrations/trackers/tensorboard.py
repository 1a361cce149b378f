"""TensorBoard: one folder of event files for each run; numbers, pictures, and the settings for its table of runs."""

from __future__ import annotations

import re
import struct
import time
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
from tensorboard.plugins.hparams import metadata
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from dynlora.integrations.trackers.base import RunFacts


def _messages(name: str) -> Any:
    return import_module(f"tensorboard.{name}_pb2")


_events, _plugin = _messages("compat.proto.event"), _messages("plugins.hparams.plugin_data")

Event, SessionLog, Summary = _events.Event, _events.SessionLog, _messages("compat.proto.summary").Summary
HParamsPluginData = _plugin.HParamsPluginData
SessionStartInfo, SessionEndInfo = _plugin.SessionStartInfo, _plugin.SessionEndInfo
DecodeError = import_module("google.protobuf.message").DecodeError
Status = _messages("plugins.hparams.api").Status

QUEUE = 1000
"""Events that wait for the library's thread before a caller does."""

STATUS = {"finished": Status.STATUS_SUCCESS, "failed": Status.STATUS_FAILURE}


class TensorBoard:
    """Writes event files; a resumed run gets another file in the same folder, as TensorBoard expects it."""

    def start(self, facts: RunFacts, config: Mapping[str, Any]) -> int | None:
        """Open an event file in the run's folder; return the last step that the files there hold."""
        self.run = folder_name(facts)
        folder = Path(facts.address) / self.run
        last = _last_step(folder)
        self._writer = EventFileWriter(str(folder), max_queue_size=QUEUE)
        if last is None:
            start = SessionStartInfo(start_time_secs=facts.created, group_name=facts.id)
            for key, value in config.items():
                _set(start.hparams[key], value)
            self._add(0, _of_session(metadata.SESSION_START_INFO_TAG, HParamsPluginData(session_start_info=start)))
        return last

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Write the numbers of a step as one event."""
        self._add(step, *(Summary.Value(tag=name, simple_value=value) for name, value in values.items()))

    def picture(self, step: int, name: str, png: bytes) -> None:
        """Write a picture."""
        width, height = struct.unpack(">II", png[16:24])
        image = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=png)
        self._add(step, Summary.Value(tag=name, image=image))

    def flush(self) -> None:
        """Bring the events to the file."""
        self._writer.flush()

    def finish(self, status: str, ended: float) -> None:
        """Say how the run ended and close the file."""
        end = SessionEndInfo(status=STATUS.get(status, Status.STATUS_UNKNOWN), end_time_secs=ended)
        self._add(0, _of_session(metadata.SESSION_END_INFO_TAG, HParamsPluginData(session_end_info=end)))
        self._writer.close()

    def _add(self, step: int, *values: Any) -> None:
        event = Event(wall_time=time.time(), step=step, summary=Summary(value=values))
        self._writer.add_event(event)


def folder_name(facts: RunFacts) -> str:
    """Return the name of a run's folder: what the run is called, in characters of file names, and the end of its id."""
    words = re.sub(r"[^A-Za-z0-9._=-]+", "-", facts.name).strip("-.")[:80]
    return f"{words or 'run'}-{facts.id.rpartition('-')[2]}"


def _last_step(folder: Path) -> int | None:
    """Return the last step of the numbers in a folder's event files; None where there are none."""
    steps = [
        event.step
        for path in sorted(folder.glob("*tfevents*"))
        for event in map(Event.FromString, RawEventFileLoader(str(path)).Load())
        if any(value.WhichOneof("value") == "simple_value" for value in event.summary.value)
    ]
    return max(steps, default=None)


def _of_session(tag: str, data: Any) -> Any:
    """Return what TensorBoard's table of runs reads: no number, only data for its plugin."""
    return Summary.Value(tag=tag, metadata=metadata.create_summary_metadata(data), tensor=metadata.NULL_TENSOR)


def _set(field: Any, value: Any) -> None:
    """Set a protobuf value of any kind."""
    if isinstance(value, bool):
        field.bool_value = value
    elif isinstance(value, int | float):
        field.number_value = value
    else:
        field.string_value = str(value)
