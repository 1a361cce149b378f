"""The components of one module over the steps: their factors, and which became a copy of which."""

# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false, reportGeneralTypeIssues=false
# (pandas comes without types)
from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from dynlora.viz.decisions import edits_of
from dynlora.viz.labels import plural, spans

FACTOR = "factor"
"""The signal over components: e, what each component's part of the update is multiplied by."""

COPY = "copy"
"""The kind of edit that puts a copy of one component into the slot of another."""


def of_module(frame: pd.DataFrame, modules: pd.DataFrame, name: str) -> pd.DataFrame:
    """Return the rows of a signal over components that belong to one module, one row a slot that was ever in use.

    Args:
        frame: one row a component as recorded, each module's room one after the other; one column a step.
        modules: as `capacity.described` returns them.
        name: of the module.
    """
    recorded = modules.sort_values("position")
    room = recorded["max_rank"].to_numpy(int)
    if room.sum() != len(frame) or name not in set(recorded["name"]):
        return frame.iloc[:0]
    place = recorded["name"].tolist().index(name)
    first = int(room[:place].sum())
    rows = frame.iloc[first : first + room[place]].reset_index(drop=True)
    return rows.loc[: int(rows.index[rows.notna().any(axis=1)].max())] if rows.notna().any(axis=None) else rows.iloc[:0]


def copies(events: pd.DataFrame, modules: pd.DataFrame) -> pd.DataFrame:
    """Return every copy of the decision log: columns step, module (name), source, target, source_factor, target_factor.

    Args:
        events: as `queries.events_frame` returns them.
        modules: as `capacity.described` returns them.
    """
    names = dict(zip(modules["position"], modules["name"], strict=True))
    rows = [
        (int(step), names[edit["donor"]], *(edit[key] for key in _PLACES), *(_number(edit.get(key)) for key in _SCORES))
        for step, payload in zip(events["step"], events["payload"], strict=True)
        for edit in edits_of(payload)
        if edit.get("edit") == COPY and all(_is_place(edit.get(key)) for key in ("donor", *_PLACES))
        if edit["donor"] in names
    ]
    return pd.DataFrame(rows, columns=["step", "module", "source", "target", "source_factor", "target_factor"])


def lineage(found: pd.DataFrame, slots: int) -> pd.DataFrame:
    """Return the ancestor of each slot after the copies of one module: columns slot, founder, copies, born.

    `founder` is the slot whose first component the present one descends from, `born` the step of the last copy into the
    slot (0: it was never overwritten), `copies` how many lie between.
    """
    founder, depth, born = list(range(slots)), [0] * slots, [0] * slots
    for step, part in found.groupby("step", sort=True):
        before, deep = list(founder), list(depth)
        for row in part.itertuples():
            if row.source < slots and row.target < slots:
                founder[row.target], depth[row.target] = before[row.source], deep[row.source] + 1
                born[row.target] = int(step)
    return pd.DataFrame({"slot": range(slots), "founder": founder, "copies": depth, "born": born})


def sentence(rows: pd.DataFrame, found: pd.DataFrame, module: str) -> str:
    """Return the sentence under the components of a module; `rows` as `of_module` returns them."""
    if rows.empty:
        return f"{module} has no factors on its components."
    last = rows.iloc[:, -1]
    zero, lived = int((last == 0).sum()), int(last.notna().sum())
    words = f"{module}: {plural(lived, 'component')} at the end"
    words += f", {zero} of them at factor zero" if zero else ""
    if found.empty:
        return f"{words}."
    founders = sorted(set(lineage(found, len(rows))["founder"]))
    many = "1 copy" if len(found) == 1 else f"{len(found):,} copies"
    return f"{words}; after {many} all descend from {plural(len(founders), 'slot')} ({spans(founders)})."


_PLACES = ("donor_component", "receiver_component")
_SCORES = ("donor_score", "receiver_score")


def _is_place(value: Any) -> bool:
    """Say whether a value of the log can be a position."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else np.nan
