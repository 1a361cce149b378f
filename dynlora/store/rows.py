"""What the store hands out: plain frozen dataclasses, one per table."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Json = Any
"""A value `json.loads` can return."""

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float32]
WideArray = NDArray[np.float64]


@dataclass(frozen=True)
class ModuleRow:
    """One adapted linear module.

    Attributes:
        name: dotted name in the model.
        layer: index of the transformer block, None outside the blocks.
        kind: the projection (query, key, ...).
        d_in: input features.
        d_out: output features.
        max_rank: components allocated.
    """

    name: str
    layer: int | None
    kind: str
    d_in: int
    d_out: int
    max_rank: int

    @classmethod
    def of(cls, info: Any, max_rank: int) -> ModuleRow:
        """Return the row of a module that the engine describes with the same names."""
        return cls(info.name, info.layer, info.kind, info.d_in, info.d_out, max_rank)


@dataclass(frozen=True)
class SignalRow:
    """One recorded signal.

    Attributes:
        id: number used in the tables.
        name: its name, e.g. `importance`.
        axis: what its values run over: module, component, group, example or member.
        unit: unit of its values, empty for plain numbers.
        width: float32 values per step.
    """

    id: int
    name: str
    axis: str
    unit: str
    width: int


@dataclass(frozen=True)
class Status:
    """The state of a run; `status` is derived from the process, `state` is what the writer stored.

    Attributes:
        status: queued, running, stopping, finished, failed, stopped or interrupted.
        state: the stored state, never `interrupted`.
        step: last completed step that is visible.
        max_steps: steps of the whole run.
        heartbeat: seconds since the epoch of the last sign of life.
        heartbeat_age_s: seconds since then.
        stalled_s: that age when the process lives but has been silent too long, else None.
        other_host: the run is being written on another machine, so its process cannot be looked at.
        pid: process that writes or wrote the run.
        process_start: start of that process, seconds since the epoch.
        host: name of its machine.
        error: one sentence when the run failed.
        opened: how often a writer opened the run.
    """

    status: str
    state: str
    step: int
    max_steps: int
    heartbeat: float
    heartbeat_age_s: float
    stalled_s: float | None
    other_host: bool
    pid: int | None
    process_start: float | None
    host: str | None
    error: str | None
    opened: int

    @property
    def is_running(self) -> bool:
        """Whether a process trains the run, also one that was asked to stop and is saving its state."""
        return self.status in ("running", "stopping")


@dataclass(frozen=True)
class Event:
    """A discrete change; `modules` are positions, `payload` is JSON, `time` seconds since the epoch."""

    seq: int
    time: float
    step: int
    kind: str
    modules: list[int]
    payload: dict[str, Json]


@dataclass(frozen=True)
class Example:
    """One example of the fixed probe set; x and y place it in the 2-D map of the inputs."""

    position: int
    text: str
    text_pair: str | None
    label: str | None
    group: str | None
    x: float
    y: float


@dataclass(frozen=True)
class LogLine:
    """One line of the run's own log; `time` in seconds since the epoch."""

    seq: int
    time: float
    level: str
    message: str


@dataclass(frozen=True)
class Series:
    """One scalar over the steps; `points` counts the recorded values, more than shown when binned."""

    name: str
    split: str
    steps: IntArray
    values: WideArray
    points: int


@dataclass(frozen=True)
class Bins:
    """A series cut into bins of neighbouring rows.

    Attributes:
        first_step: first step of each bin, (bins,).
        last_step: last step of each bin, (bins,).
        count: recorded rows in each bin, (bins,).
        low: least value per bin, NaN only where all are, (bins, width).
        high: greatest value, the same way, (bins, width).
        last: value at the last step of the bin, (bins, width).
    """

    first_step: IntArray
    last_step: IntArray
    count: IntArray
    low: NDArray[np.floating[Any]]
    high: NDArray[np.floating[Any]]
    last: NDArray[np.floating[Any]]

    @property
    def points(self) -> int:
        """Rows behind all bins together."""
        return int(self.count.sum())


@dataclass(frozen=True)
class SystemSeries:
    """One machine reading over time; `times` in seconds since the epoch."""

    name: str
    times: WideArray
    values: WideArray = field(repr=False)
