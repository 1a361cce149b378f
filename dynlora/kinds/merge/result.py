"""What a merge recorded: its runs, the ranks it came to, and its loss on the held-out data of each run.

As little trusted as the rest of a run: a value of another kind counts as one that was never written.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from dynlora.analysis.stats import side_of_0
from dynlora.kinds.recycle.result import MAX_NAME, Teacher, intervals_of, stage_of, teacher_of
from dynlora.store.meta import count, finite, items, short_text, table
from dynlora.store.reader import RunReader
from dynlora.text import listed, one_line, percent, plural, signed

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


MODELS = {MERGE: "Merge", OWN: "Its own adapter", BASE: "Base model"}
"""What each model is called, in the order in which they are shown."""

COLUMNS = ["data of", "model", "mean", "low", "high", "examples"]


def source_names(merge: Merge) -> dict[str, str]:
    """Return what each source is called, by its run; equal names get the end of the run's id."""
    times = Counter(source.name for source in merge.sources)
    return {one.run: one.name if times[one.name] == 1 else f"{one.name} ({one.run[-4:]})" for one in merge.sources}


def row_of(rows: Sequence[Loss], source: str, model: str = MERGE) -> Loss | None:
    """Return the row of a source and a model; None where it was not measured."""
    return next((row for row in rows if (row.source, row.model) == (source, model)), None)


def loss_frame(merge: Merge) -> pd.DataFrame:
    """Return the losses: columns data of, model, mean, low, high, examples; the sources in order."""
    names = source_names(merge)
    rows = [
        [names[source], label, row.mean, row.low, row.high, row.n]
        for source in names
        for model, label in MODELS.items()
        if (row := row_of(merge.loss, source, model)) is not None
    ]
    return pd.DataFrame(rows, columns=COLUMNS)


def difference_frame(merge: Merge) -> pd.DataFrame:
    """Return the paired differences of the merge's loss: columns data of, against, difference, low, high, examples."""
    names = source_names(merge)
    rows = [
        [names[source], MODELS[model], row.mean, row.low, row.high, row.n]
        for source in names
        for model, differences in ((OWN, merge.against_own), (BASE, merge.against_base))
        if (row := row_of(differences, source)) is not None
    ]
    return pd.DataFrame(rows, columns=["data of", "against", "difference", "low", "high", "examples"])


def ranks_frame(merge: Merge) -> pd.DataFrame:
    """Return the rank of each module: columns module, Merge, and one for each source by its name."""
    names = list(source_names(merge).values())
    rows = [[one.module, one.merge, *one.sources] for one in merge.ranks if len(one.sources) == len(names)]
    return pd.DataFrame(rows, columns=["module", MODELS[MERGE], *names])


def sources_frame(merge: Merge) -> pd.DataFrame:
    """Return the sources: columns source, strategy, rank, weight, run."""
    weights = merge.weights if len(merge.weights) == len(merge.sources) else (None,) * len(merge.sources)
    rows = [
        [one.name, one.strategy, one.rank, weight, one.run] for one, weight in zip(merge.sources, weights, strict=True)
    ]
    return pd.DataFrame(rows, columns=["source", "strategy", "rank", "weight", "run"])


WHAT = (
    "Several finished adapters of one base model become one adapter, without training. Each module's updates are "
    "combined, and one threshold over all modules cuts the result to a budget of parameters."
)

METHODS = {"stack": "weighted sum", "ties": "TIES", "dare": "DARE"}
"""What each method is called."""

STAGES = {"modules": "the updates of each module are merged", "test": "the merge is measured on the data of each run"}
"""What happens in each stage."""

WITH_NUMBERS = 3
"""Sources that are named with their difference; more are named alone, and the table has the numbers."""


def about(merge: Merge) -> str:
    """Return the line under the title: how many adapters were merged, and how."""
    return (
        f"Merge of {plural(len(merge.sources), 'adapter')} by {METHODS.get(merge.method, merge.method or 'a method')}"
    )


def headline(merge: Merge) -> str:
    """Return the conclusion in a sentence: the loss of the merge against the run's own adapter."""
    if not merge.against_own:
        return "No held-out data could be read, so the merge was not tested." if merge.notes else "Not tested yet."
    return _compared(merge, merge.against_own, "the run's own adapter")


def basis(merge: Merge) -> str:
    """Return what the conclusion rests on: the base model, the size of the merge, and notes."""
    if not merge.ranks:
        return WHAT
    against_base = _compared(merge, merge.against_base, "the base model") if merge.against_base else ""
    share = merge.parameters / merge.of if merge.of else None
    size = (
        f"The merge has {merge.parameters:,} parameters, {percent(share, 0)} of the {merge.of:,} of "
        f"{plural(len(merge.sources), 'adapter')} together, which are combined by "
        f"{METHODS.get(merge.method, merge.method)}."
    )
    notes = one_line(" ".join(f"{note[:1].upper()}{note[1:]}." for note in merge.notes), 600)
    return " ".join(part for part in (against_base, size, notes) if part)


def _compared(merge: Merge, rows: Sequence[Loss], other: str) -> str:
    """Return on whose data the merge's loss is higher than, lower than, or like that of another model."""
    words = {
        "above": "is significantly higher than",
        "unclear": "is not significantly different from",
        "below": "is significantly lower than",
        "few": "was measured on too few examples to compare with",
    }
    sides = [side_of_0(row.low, row.high, row.n) for row in rows]
    parts = [
        f"{relation} that of {other} on the data of "
        + _named(merge, [row for row, own in zip(rows, sides, strict=True) if own == side])
        for side, relation in words.items()
        if side in sides
    ]
    return f"The merge's held-out loss {'; it '.join(parts)}."


def _named(merge: Merge, rows: Sequence[Loss]) -> str:
    names = source_names(merge)
    if len(rows) > WITH_NUMBERS:
        return listed([names.get(row.source, row.source) for row in rows])
    return listed([f"{names.get(row.source, row.source)} ({_gap(row)})" for row in rows])


def _gap(row: Loss) -> str:
    low, mean, high = (signed(value, 3) for value in (row.low, row.mean, row.high))
    return f"{mean}, 95 % CI {low} to {high}, n = {row.n:,}"


def progress(merge: Merge, step: int) -> str:
    """Return what happens now."""
    last = merge.stages[-1][0] if merge.stages else ""
    stage = next((name for name, end in merge.stages if step <= end), last)
    return f"Now {STAGES.get(stage, stage or 'loading')}."
