"""What a merge recorded: its runs, the ranks it came to, and its loss on the held-out data of each run."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import pandas as pd
from pydantic import BeforeValidator

from dynlora.analysis.stats import side_of_0
from dynlora.kinds.recorded import (
    BySource,
    Interval,
    Number,
    Recorded,
    Rows,
    Short,
    SourcedResult,
    Tally,
    interval_of,
)
from dynlora.store.meta import finite, items, short_text, table
from dynlora.store.reader import RunReader
from dynlora.text import listed, percent, plural, signed

MERGE, OWN, BASE = "merge", "own", "base"
"""Models whose loss is measured: the merge, the run's own adapter, and the base model."""

MERGED = "merged"
"""Kind of the event that holds the ranks, once all modules are merged."""

MAX_SOURCES, MAX_NAME = 100, 200


class ModuleRanks(Recorded):
    """The rank of a module in the merge, and in each run, in their order; 0 where it is not adapted."""

    module: Short = ""
    merge: Tally = 0
    sources: Rows[Tally] = ()


def _weights(value: Any) -> list[float]:
    """Return the numbers of a list."""
    return [weight for weight in map(finite, items(value, MAX_SOURCES)) if weight is not None]


class Merge(SourcedResult):
    """All that a merge recorded.

    Attributes:
        method: stack, ties or dare.
        weights: of the sources.
        density: fraction of the entries that ties and dare keep; None for stack.
        head: whether the merge predicts: `none` where no head was trained, `equal` or `own`.
        unit: of the loss.
        parameters: of the merge; 0 until all modules are merged.
        budget: parameters that it may have.
        of: parameters of all sources together.
        ranks: by module, once all are merged.
        loss: of each source and model.
        against_own, against_base: paired differences of the merge's loss from theirs.
    """

    KIND = "merge"
    EVENT = MERGED
    STAGES = {
        "modules": "the updates of each module are merged",
        "test": "the merge is measured on the data of each run",
    }

    method: Short = ""
    weights: Annotated[tuple[float, ...], BeforeValidator(_weights)] = ()
    density: Number = None
    head: Short = ""
    unit: Short = ""
    parameters: Tally = 0
    budget: Tally = 0
    of: Tally = 0
    ranks: Rows[ModuleRanks] = ()
    loss: BySource = ()
    against_own: BySource = ()
    against_base: BySource = ()

    @classmethod
    def more(cls, reader: RunReader, meta: Mapping[str, Any], payloads: list[dict[str, Any]]) -> dict[str, Any]:
        """Return parameters and ranks, once all modules are merged."""
        return payloads[-1] if payloads else {}

    @property
    def is_tested(self) -> bool:
        """Whether its loss is measured."""
        return bool(self.loss)

    def about(self) -> str:
        """Return the line under the title: how many adapters were merged, and how."""
        method = METHODS.get(self.method, self.method or "a method")
        return f"Merge of {plural(len(self.sources), 'adapter')} by {method}"

    def headline(self) -> str:
        """Return the conclusion in a sentence: the loss of the merge against the run's own adapter."""
        if not self.against_own:
            return "No held-out data could be read, so the merge was not tested." if self.notes else "Not tested yet."
        return _compared(self, self.against_own, "the run's own adapter")

    def basis(self) -> str:
        """Return what the conclusion rests on: the base model, the size of the self, and notes."""
        if not self.ranks:
            return WHAT
        against_base = _compared(self, self.against_base, "the base model") if self.against_base else ""
        share = self.parameters / self.of if self.of else None
        size = (
            f"The merge has {self.parameters:,} parameters, {percent(share, 0)} of the {self.of:,} of "
            f"{plural(len(self.sources), 'adapter')} together, which are combined by "
            f"{METHODS.get(self.method, self.method)}."
        )
        return " ".join(part for part in (against_base, size, self.notes_text()) if part)


def head_of(folder: str | os.PathLike[str]) -> str:
    """Return what head a merge has: `none` was trained, the `equal` one of all, or `own` where each has another.

    Empty before its sources were loaded.
    """
    with RunReader(folder) as reader:
        return short_text(table(reader.meta(("merge",)).get("merge")).get("head"), MAX_NAME)


MODELS = {MERGE: "Merge", OWN: "Its own adapter", BASE: "Base model"}
"""What each model is called, in the order in which they are shown."""

COLUMNS = ["data of", "model", "mean", "low", "high", "examples"]


def loss_frame(merge: Merge) -> pd.DataFrame:
    """Return the losses: columns data of, model, mean, low, high, examples; the sources in order."""
    names = merge.names()
    rows = [
        [names[source], label, row.mean, row.low, row.high, row.n]
        for source in names
        for model, label in MODELS.items()
        if (row := interval_of(merge.loss, model, source)) is not None
    ]
    return pd.DataFrame(rows, columns=COLUMNS)


def difference_frame(merge: Merge) -> pd.DataFrame:
    """Return the paired differences of the merge's loss: columns data of, against, difference, low, high, examples."""
    names = merge.names()
    rows = [
        [names[source], MODELS[model], row.mean, row.low, row.high, row.n]
        for source in names
        for model, differences in ((OWN, merge.against_own), (BASE, merge.against_base))
        if (row := interval_of(differences, MERGE, source)) is not None
    ]
    return pd.DataFrame(rows, columns=["data of", "against", "difference", "low", "high", "examples"])


def ranks_frame(merge: Merge) -> pd.DataFrame:
    """Return the rank of each module: columns module, Merge, and one for each source by its name."""
    names = list(merge.names().values())
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

WITH_NUMBERS = 3
"""Sources that are named with their difference; more are named alone, and the table has the numbers."""


def _compared(merge: Merge, rows: Sequence[Interval], other: str) -> str:
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


def _named(merge: Merge, rows: Sequence[Interval]) -> str:
    names = merge.names()
    if len(rows) > WITH_NUMBERS:
        return listed([names.get(row.source, row.source) for row in rows])
    return listed([f"{names.get(row.source, row.source)} ({_gap(row)})" for row in rows])


def _gap(row: Interval) -> str:
    low, mean, high = (signed(value, 3) for value in (row.low, row.mean, row.high))
    return f"{mean}, 95 % CI {low} to {high}, n = {row.n:,}"
