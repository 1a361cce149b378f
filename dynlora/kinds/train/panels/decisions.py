"""The decision log in words: what a method decided beside moving rank, an entry a decision."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from dynlora.analysis.run_reading import RunReading
from dynlora.kinds.train.kind import CapacityPanel
from dynlora.text import number, one_line
from dynlora.viz.kit.panel import RunView

MOVES = ("move", "grow", "drop", "scale")
"""Kinds of edits that have charts of their own, or would flood a list."""

COLUMNS = ("step", "decision", "modules", "detail")
_NAMED = 6
_PLACES = ("edit", "module", "modules", "donor", "receiver")
_DRAWN = ("history",)
"""What has a chart of its own: the candidates of a search, see `search`."""


MOST_LISTED = 200
"""Decisions that are listed; all are in the table."""


class OtherDecisions(CapacityPanel[pd.DataFrame]):
    """What the method decided beside moving rank, as a list."""

    id = "decisions"
    order = 10
    title = "Other decisions"
    missing = "There are no decisions other than rank transfers."
    is_wide = True

    def applies(self, view: RunView) -> bool:
        """Say whether there was one in the chosen steps."""
        return super().applies(view) and self.data(view) is not None

    def data(self, view: RunView) -> pd.DataFrame | None:
        """Return the decisions in the chosen steps."""
        run: RunReading = view.result
        rows = decisions(run.reallocations, run.modules)
        return None if rows.empty else rows

    def caption(self, data: pd.DataFrame) -> str:
        """Return how many decisions there were, of which kinds."""
        return summary(data)

    def short_table(self, data: pd.DataFrame) -> pd.DataFrame:
        """Return the last decisions."""
        return data.tail(MOST_LISTED)


def decisions(events: pd.DataFrame, modules: pd.DataFrame) -> pd.DataFrame:
    """Return what was decided but moves of rank: columns step, decision, modules (short names) and detail.

    Args:
        events: as `queries.events_frame` returns them.
        modules: as `capacity.described` returns them.
    """
    short = dict(zip(modules["position"], modules["short"], strict=True))
    rows = [
        {"step": int(step), **_row(edit, short)}
        for step, payload in zip(events["step"], events["payload"], strict=True)
        for edit in edits_of(payload)
        if edit.get("edit") not in MOVES
    ]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def summary(decisions: pd.DataFrame) -> str:
    """Say how many decisions there were, of which kinds."""
    if decisions.empty:
        return "There are no decisions other than rank transfers."
    counts = decisions["decision"].value_counts()
    kinds = ", ".join(f"{count} × {one_line(kind, 40)}" for kind, count in counts.items())
    many, steps = len(decisions), decisions["step"].nunique()
    return f"{many:,} decision{'s' * (many != 1)} at {steps:,} step{'s' * (steps != 1)}: {kinds}."


def edits_of(payload: Any) -> list[Mapping[str, Any]]:
    """Return the edits of an event; a store is not trusted, so what is no edit is left out."""
    edits = payload.get("edits") if isinstance(payload, Mapping) else None
    rows = edits if isinstance(edits, list) else []
    return [row for row in rows if isinstance(row, Mapping)]


def _row(edit: Mapping[str, Any], short: Mapping[int, str]) -> dict[str, str]:
    """Return one decision in words."""
    touched = edit.get("modules", edit.get("module", [edit.get("donor"), edit.get("receiver")]))
    named = touched if isinstance(touched, Sequence) and not isinstance(touched, str) else [touched]
    places = list(dict.fromkeys(place for place in named if isinstance(place, int)))
    names = [short.get(place, "?") for place in places]
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    rest = {key: value for key, value in edit.items() if key not in (*_PLACES, *_DRAWN)}
    return {
        "decision": one_line(str(edit.get("edit", "?")).replace("_", " "), 40),
        "modules": one_line(", ".join(names[:_NAMED]), 160) + more,
        "detail": one_line(", ".join(f"{key.replace('_', ' ')} {_said(value)}" for key, value in rest.items()), 200),
    }


def _said(value: Any) -> str:
    """Return a value of a decision for people."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return number(value)
    if isinstance(value, list):
        return ", ".join(_said(item) for item in value[:8]) + (" …" if len(value) > 8 else "")
    return str(value)
