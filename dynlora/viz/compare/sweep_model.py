"""Sweeps: results over two settings as a grid, and over one as lines with a band of seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from dynlora.analysis.seed_groups import Group, grouped, methods
from dynlora.store import search_fields
from dynlora.viz.compare.scatter_model import NOT_SETTINGS, Row, format_value, in_order, swept

BUDGET = "params.budget"
SIZE_OF = {BUDGET: ("adapter.rank", "adapter.alpha"), "adapter.rank": ("adapter.rank", "adapter.alpha")}
"""Settings that go with an axis: alpha may follow the rank, and both set the budget."""

MOST_VALUES = 24
"""Most values of a setting in a grid; of more the first are shown."""

LINES = {"method": "One line per method", "configuration": "One line per configuration"}
"""What a line can stand for: name in the address, and words."""

MOST_LINES = 40
"""Most lines that are drawn."""


def ended(rows: Sequence[Row], metric: str) -> list[Row]:
    """Return the finished runs that have a metric: a result half way is no result of a setting."""
    return [row for row in rows if row["status"] == "finished" and _result(row, metric) is not None]


def _result(row: Row, metric: str) -> float | None:
    value = (row.get("metrics") or {}).get(metric)
    return float(value) if isinstance(value, int | float) else None


def grid(rows: Sequence[Row], across: str, down: str, metric: str) -> pd.DataFrame:
    """Return a row for each pair of values: down, across, mean, spread (deviation, n - 1), n; NaN without runs.

    Args:
        rows: finished runs.
        across: setting of the columns, by dotted key.
        down: setting of the rows.
        metric: whose mean over the runs of a cell is shown.
    """
    columns = swept(rows)
    cells: dict[tuple[str, str], list[float]] = {}
    tops, sides = (in_order(columns[key])[:MOST_VALUES] for key in (across, down))
    order = [[format_value(value) for value in values] for values in (sides, tops)]
    for row, top, side in zip(rows, columns[across], columns[down], strict=True):
        value = _result(row, metric)
        cell = (format_value(side), format_value(top))
        if value is not None and cell[0] in order[0] and cell[1] in order[1]:
            cells.setdefault(cell, []).append(value)
    cell_rows = [(side, top, *_summed(cells.get((side, top), []))) for side in order[0] for top in order[1]]
    return pd.DataFrame(cell_rows, columns=["down", "across", "mean", "spread", "n"])


def _summed(values: Sequence[float]) -> tuple[float, float, int]:
    spread = float(np.std(values, ddof=1)) if len(values) > 1 else float("nan")
    return float(np.mean(values)) if values else float("nan"), spread, len(values)


def averaged_over(rows: Sequence[Row], axes: Sequence[str]) -> list[str]:
    """Return the settings in which runs that share all that is shown differ: what a mean over a cell hides."""
    first: dict[str, Mapping[str, Any]] = {}
    differing: dict[str, None] = {}
    for row in rows:
        one = search_fields.settings(row)
        base = first.setdefault(str([one.get(key) for key in axes]), one)
        differing |= dict.fromkeys(key for key in [*base, *one] if base.get(key) != one.get(key))
    return [key for key in differing if key not in (*NOT_SETTINGS, *axes)]


def ways(rows: Sequence[Row]) -> list[str]:
    """Return what an axis of the curves can be: settings that are numbers and vary, then the budget where it does."""
    numeric = [
        key for key, values in swept(rows).items() if len({one for one in values if isinstance(one, int | float)}) > 1
    ]
    first = [key for key in ("train.lr", "adapter.rank") if key in numeric]
    budgets = {(row.get("params") or {}).get("budget") for row in rows} - {None}
    return [*first, *([BUDGET] if len(budgets) > 1 else []), *(key for key in numeric if key not in first)]


def curves(rows: Sequence[Row], along: str, metric: str) -> pd.DataFrame:
    """Return the lines over one axis: columns group, method, x, mean, low, high, n; a row for each value of the axis.

    A line holds the runs that differ in the axis and the seed alone, so that nothing else is averaged away.

    Args:
        rows: finished runs.
        along: one of `ways`.
        metric: of the y axis.
    """
    places = {row["id"]: _place(row, along) for row in rows}
    results = {row["id"]: _result(row, metric) for row in rows}
    named = methods(rows)
    points = []
    for group in grouped(rows, SIZE_OF.get(along, (along,))):
        values: dict[float, list[float]] = {}
        for run in group.runs:
            place, result = places[run], results[run]
            if place is not None and result is not None:
                values.setdefault(place, []).append(result)
        about = (group.label, named[group.runs[0]])
        points += [(*about, x, float(np.mean(y)), min(y), max(y), len(y)) for x, y in sorted(values.items())]
    return pd.DataFrame(points, columns=["group", "method", "x", "mean", "low", "high", "n"])


def groups_along(rows: Sequence[Row], along: str) -> dict[str, Group]:
    """Return the group of each line of `curves` by its label."""
    return {group.label: group for group in grouped(rows, SIZE_OF.get(along, (along,)))}


def best_of_each(lines: pd.DataFrame, *, low_is_good: bool) -> pd.DataFrame:
    """Return one line per method: at each value of the axis that of its configurations with the best mean."""
    best = lines.sort_values("mean", ascending=low_is_good, kind="stable").drop_duplicates(["method", "x"])
    order = {name: place for place, name in enumerate(dict.fromkeys(lines["method"]))}
    best = best.assign(group=best["method"], place=best["method"].map(order)).sort_values(["place", "x"])
    return best.drop(columns="place").reset_index(drop=True)


def _place(row: Row, along: str) -> float | None:
    value: Any = (row.get("params") or {}).get("budget") if along == BUDGET else search_fields.value_of(row, along)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def metrics_of(rows: Sequence[Row]) -> list[str]:
    """Return the names of the metrics that these runs have, those of most runs first."""
    counts: dict[str, int] = {}
    for row in rows:
        for name, value in (row.get("metrics") or {}).items():
            if isinstance(value, int | float):
                counts[name] = counts.get(name, 0) + 1
    return sorted(counts, key=lambda name: -counts[name])


def most_lines(lines: pd.DataFrame) -> tuple[pd.DataFrame, int]:
    """Return the lines that are drawn, those with the most points, and how many there are in all."""
    sizes = lines["group"].value_counts(sort=False).sort_values(ascending=False, kind="stable")
    return lines[lines["group"].isin(sizes.index[:MOST_LINES])].reset_index(drop=True), len(sizes)
