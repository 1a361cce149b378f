"""Sweeps: results over two settings as a grid, and over one as lines with a band of seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from dynlora.analysis.seed_groups import Group, grouped, methods
from dynlora.store import search
from dynlora.text import listed, one_line, plotly_text, plural, score, sentence_case
from dynlora.viz.compare.scatter_model import NOT_SETTINGS, Row, format_value, in_order, is_logarithmic, swept, title
from dynlora.viz.kit import theme
from dynlora.viz.kit.theme import Palette

MOST_SETTINGS = 6
"""Most settings that are drawn, the most varied first."""

FEWEST_RUNS = 4
"""Fewer runs are no picture of a search."""

OVER = ("finished", "stopped")
"""States of the runs that are drawn."""

PANEL = 250
"""Height of a row of panels in pixels."""

ACROSS = 3
"""Panels beside each other."""

TICK = 24
"""Most letters of a text on an axis."""


def slices(rows: Sequence[Row], metric: str) -> pd.DataFrame:
    """Return a row for each run and setting: setting, value, place, result, run, name, finished.

    `place` is the value, or the position of a text in its order. Runs that were stopped are with their last
    evaluation: most of them were stopped because of it.

    Args:
        rows: of the runs.
        metric: the result.
    """
    known = [
        row for row in rows if row["status"] in OVER and isinstance((row.get("metrics") or {}).get(metric), int | float)
    ]
    records: list[dict[str, Any]] = []
    for key, values in list(swept(known).items())[:MOST_SETTINGS]:
        order = [format_value(value) for value in in_order(values)]
        is_number = all(isinstance(value, int | float) for value in values)
        records += [
            {
                "setting": key,
                "value": format_value(value),
                "place": float(value) if is_number else float(order.index(format_value(value))),
                "result": float(row["metrics"][metric]),
                "run": str(row["id"]),
                "name": str(row.get("name") or row["id"]),
                "finished": row["status"] == "finished",
            }
            for row, value in zip(known, values, strict=True)
        ]
    columns = ["setting", "value", "place", "result", "run", "name", "finished"]
    return pd.DataFrame(records, columns=columns)


def figure(table: pd.DataFrame, metric: str, colours: Palette, *, low_is_good: bool) -> go.Figure:
    """Draw a panel for each setting; the best run is larger in all of them, stopped runs are open.

    Args:
        table: as `slices` returns it.
        metric: of the y axes.
        colours: of the mode.
        low_is_good: less is better.
    """
    keys = list(dict.fromkeys(table["setting"]))
    across = min(ACROSS, len(keys))
    lines = -(-len(keys) // across)
    drawn = theme.figure(colours, PANEL * lines + 20)
    best = _best(table, low_is_good=low_is_good)
    for index, key in enumerate(keys):
        part, end = table[table["setting"] == key], "" if index == 0 else str(index + 1)
        drawn.add_scatter(xaxis=f"x{end}", yaxis=f"y{end}", **_dots(part, best, metric, colours))
        drawn.update_layout(_axes(part, metric, colours, index, (across, lines)))
    return drawn


def _dots(part: pd.DataFrame, best: str, metric: str, colours: Palette) -> dict[str, Any]:
    """Return the points of a panel."""
    is_best = (part["run"] == best).to_numpy()
    about = plotly_text(title(part["setting"].iloc[0]), 60)
    names = [(plotly_text(name, 80), plotly_text(value, 60)) for name, value in part[["name", "value"]].to_numpy()]
    return {
        "x": part["place"],
        "y": part["result"],
        "mode": "markers",
        "customdata": names,
        "marker": {
            "symbol": ["circle" if done else "circle-open" for done in part["finished"]],
            "size": np.where(is_best, 13, 8),
            "line": {"width": 1.4, "color": colours.accent},
            "color": [colours.second if one else colours.accent for one in is_best],
        },
        "hovertemplate": f"%{{customdata[0]}}<br>{about} %{{customdata[1]}}<br>"
        f"{plotly_text(metric, 40)} %{{y:.4f}}<extra></extra>",
    }


def _axes(part: pd.DataFrame, metric: str, colours: Palette, index: int, panels: tuple[int, int]) -> dict[str, Any]:
    """Return the axes of a panel at its place among (across, lines) panels; all share the scale of the result."""
    (column, line), end = (index % panels[0], index // panels[0]), "" if index == 0 else str(index + 1)
    width, height, look = 1 / panels[0], 1 / panels[1], theme.axis(colours)
    about = {**look["title"], "text": plotly_text(sentence_case(title(part["setting"].iloc[0])), 40)}
    result = {**look["title"], "text": plotly_text(metric, 40)} if column == 0 else look["title"]
    across = [column * width + 0.02, (column + 1) * width - 0.02]
    up = [1 - (line + 0.84) * height, 1 - line * height - 0.02]
    return {
        f"xaxis{end}": {**look, "domain": across, "anchor": f"y{end}", "title": about, **_scale(part)},
        f"yaxis{end}": {
            **look,
            "domain": up,
            "anchor": f"x{end}",
            "showticklabels": column == 0,
            "title": result,
            **({"matches": "y"} if end else {}),
        },
    }


def _scale(part: pd.DataFrame) -> dict[str, Any]:
    """Return the scale of a panel: logarithmic where numbers reach far, names where they are texts."""
    order = part.drop_duplicates("value").sort_values("place")
    if any(_number(value) is None for value in order["value"]):
        ticks = {"tickvals": order["place"].tolist(), "ticktext": [plotly_text(one, TICK) for one in order["value"]]}
        return {"tickmode": "array", **ticks, "range": [-0.5, len(order) - 0.5]}
    if is_logarithmic(order["place"].tolist()):
        return {"type": "log", "dtick": "D2" if order["place"].max() < 100 * order["place"].min() else 1}
    return {"type": "linear"}


def _number(text: str) -> float | None:
    """Return the number that a value is written as, None for a text."""
    try:
        return float(text.replace(",", ""))
    except ValueError:
        return None


def _best(table: pd.DataFrame, *, low_is_good: bool) -> str:
    """Return the id of the best finished run, else of the best one."""
    among = table[table["finished"]] if table["finished"].any() else table
    ordered = among.sort_values("result", ascending=low_is_good, kind="stable")
    return str(ordered["run"].iloc[0])


def caption(table: pd.DataFrame, metric: str, *, low_is_good: bool) -> str:
    """Say which run is best, at which values, and which of them are at the edge of what was tried.

    Args:
        table: as `slices` returns it.
        metric: the result.
        low_is_good: less is better.
    """
    own = table[table["run"] == _best(table, low_is_good=low_is_good)].drop_duplicates("setting")
    values = [f"{one_line(title(str(row.setting)), 40)} {row.value}" for row in own.itertuples()]
    edges = []
    for row in own.itertuples():
        part = table[table["setting"] == row.setting]
        if part["place"].nunique() > 2 and _number(str(row.value)) is not None:
            edges += (
                [one_line(title(str(row.setting)), 40)]
                if row.place in (part["place"].min(), part["place"].max())
                else []
            )
    stopped = int((~table.drop_duplicates("run")["finished"]).sum())
    words = f"Best {one_line(metric, 40)}: {score(float(own['result'].iloc[0]))} at {listed(values)}"
    words += f"; {listed(edges)} at the edge of the tried range, so the best value may be outside it." if edges else "."
    runs = table["run"].nunique()
    words += f" {plural(runs, 'run')}, chosen on the same held-out examples, so the best looks better than it is."
    return words + (f" {plural(stopped, 'run')} stopped early (open circles)." if stopped else "")


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
        one = search.settings(row)
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
    value: Any = (row.get("params") or {}).get("budget") if along == BUDGET else search.value_of(row, along)
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
