"""Slices: the result of every run against each setting that differs, side by side. The picture of a search."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from dynlora.text import listed, one_line, plotly_text, plural, score, sentence_case
from dynlora.viz.compare.scatter_model import Row, format_value, in_order, is_logarithmic, swept, title
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
