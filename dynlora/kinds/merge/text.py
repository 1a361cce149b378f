"""What a merge says, in sentences: the conclusion, and what it does now."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pandas as pd

from dynlora.analysis.stats import side_of_0
from dynlora.kinds.merge.result import BASE, MERGE, OWN, Loss, Merge
from dynlora.text import listed, one_line, percent, plural, signed

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
