"""What a merge says, in sentences: the conclusion, and what it does now."""

from __future__ import annotations

from collections.abc import Sequence

from dynlora.kinds.merge import frames
from dynlora.kinds.merge.result import Loss, Merge
from dynlora.text import listed, one_line, percent, plural, signed

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
    groups = {
        f"is significantly higher than that of {other}": [row for row in rows if row.low > 0],
        f"is not significantly different from that of {other}": [row for row in rows if row.low <= 0 <= row.high],
        f"is significantly lower than that of {other}": [row for row in rows if row.high < 0],
    }
    parts = [f"{outcome} on the data of {_named(merge, group)}" for outcome, group in groups.items() if group]
    return f"The merge's held-out loss {'; it '.join(parts)}."


def _named(merge: Merge, rows: Sequence[Loss]) -> str:
    names = frames.source_names(merge)
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
