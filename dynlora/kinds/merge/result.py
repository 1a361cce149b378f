"""What a merge recorded: its runs, the ranks it came to, and its loss on the held-out data of each run.

As little trusted as the rest of a run: a value of another kind counts as one that was never written.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dynlora.kinds.recycle.result import MAX_NAME, Teacher, intervals_of, stage_of, teacher_of
from dynlora.store.meta import count, finite, items, short_text, table
from dynlora.store.reader import RunReader

MERGE, OWN, BASE = "merge", "own", "base"
"""Models whose loss is measured: the merge, the run's own adapter, and the base model."""

MERGED = "merged"
"""Kind of the event that holds the ranks, once all modules are merged."""

MAX_SOURCES, MAX_MODULES, MAX_STAGES = 100, 10_000, 8

Source = Teacher
"""A run that was merged."""


@dataclass(frozen=True)
class Loss:
    """The mean loss of a model on the held-out data of a run, or its difference, with the 95 % interval.

    Attributes:
        source: id of the run whose data it is.
        model: merge, own or base.
        mean, low, high: in the unit of the task's loss.
        n: examples.
    """

    source: str
    model: str
    mean: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class ModuleRanks:
    """The rank of a module in the merge, and in each run, in their order; 0 where it is not adapted."""

    module: str
    merge: int
    sources: tuple[int, ...]


@dataclass(frozen=True)
class Merge:
    """All that a merge recorded.

    Attributes:
        sources: in order.
        method: stack, ties or dare.
        weights: of the sources.
        density: fraction of the entries that ties and dare keep; None for stack.
        head: whether the merge predicts: `none` where no head was trained, `equal` or `own`.
        unit: of the loss.
        stages: (name, last step) of each, in order.
        parameters: of the merge; 0 until all modules are merged.
        budget: parameters that it may have.
        of: parameters of all sources together.
        ranks: by module, once all are merged.
        loss: of each source and model.
        against_own, against_base: paired differences of the merge's loss from theirs.
        notes: what a person should know of the results.
    """

    sources: tuple[Source, ...]
    method: str
    weights: tuple[float, ...]
    density: float | None
    head: str
    unit: str
    stages: tuple[tuple[str, int], ...]
    parameters: int
    budget: int
    of: int
    ranks: tuple[ModuleRanks, ...]
    loss: tuple[Loss, ...]
    against_own: tuple[Loss, ...]
    against_base: tuple[Loss, ...]
    notes: tuple[str, ...]


def read_merge(folder: str | os.PathLike[str]) -> Merge:
    """Return what a merge has recorded so far.

    Raises:
        RunNotFoundError: when there is no such run.
        CorruptRunError: when it cannot be read.
    """
    with RunReader(folder) as reader:
        meta, events = reader.meta(("merge", "merge_results")), reader.events(kinds=[MERGED])
    plan, results = table(meta.get("merge")), table(meta.get("merge_results"))
    merged = table(events[-1].payload) if events else {}
    weights = [finite(value) for value in items(plan.get("weights"), MAX_SOURCES)]
    return Merge(
        sources=tuple(teacher_of(table(row)) for row in items(plan.get("sources"), MAX_SOURCES)),
        method=short_text(plan.get("method"), MAX_NAME),
        weights=tuple(value for value in weights if value is not None),
        density=finite(plan.get("density")),
        head=short_text(plan.get("head"), MAX_NAME),
        unit=short_text(plan.get("unit"), MAX_NAME),
        stages=tuple(stage_of(table(row)) for row in items(plan.get("stages"), MAX_STAGES)),
        parameters=count(merged.get("parameters")),
        budget=count(plan.get("budget")),
        of=count(plan.get("of")),
        ranks=tuple(_ranks(table(row)) for row in items(merged.get("ranks"), MAX_MODULES)),
        loss=_losses(results.get("loss")),
        against_own=_losses(results.get("against_own")),
        against_base=_losses(results.get("against_base")),
        notes=tuple(short_text(note, 1000) for note in items(results.get("notes"), 200)),
    )


def head_of(folder: str | os.PathLike[str]) -> str:
    """Return what head a merge has: `none` was trained, the `equal` one of all, or `own` where each has another.

    Empty before its sources were loaded.
    """
    with RunReader(folder) as reader:
        return short_text(table(reader.meta(("merge",)).get("merge")).get("head"), MAX_NAME)


def _ranks(row: Mapping[str, Any]) -> ModuleRanks:
    ranks = tuple(count(value) for value in items(row.get("sources"), MAX_SOURCES))
    return ModuleRanks(short_text(row.get("module"), MAX_NAME), count(row.get("merge")), ranks)


def _losses(value: Any) -> tuple[Loss, ...]:
    return tuple(Loss(*row[:5], count(row[5].get("texts"))) for row in intervals_of(value))
