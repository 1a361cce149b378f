"""What trackers are given: read from the run store, step after step, while the run is written or long after."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from dynlora.integrations.trackers.base import IMPORTANCE, NAMES, RANK
from dynlora.store.meta import is_count, section
from dynlora.store.reader import RunReader
from dynlora.store.rows import ModuleRow, Status

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
