"""Rows and colours of a map of modules over steps."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from dynlora.text import plotly_text
from dynlora.viz.kit import theme
from dynlora.viz.kit.theme import Palette

GAP, GAP_SHARE = 0.45, 0.0065
"""Space between groups of rows, in rows; and at least this fraction of all rows, so that it shows among hundreds."""

LABEL = 12
"""Height of a group's label, pixels; of labels closer to each other the first is drawn."""

THIN_FROM = 140
"""Rows from which a map has no room between single rows: they are a few pixels high."""


HANDLES = "modules"
"""Name of the points at the left of a map's rows, which take clicks."""

BESIDE_BAR = 67
"""Pixels that a map's bar takes at the right beside the words at it."""


def map_height(n: int, above: int, least: int) -> int:
    """Return the height of a map of n rows in pixels: all of a row's height while there are few, then less.

    Args:
        n: number of rows.
        above: pixels of what is beside the rows.
        least: pixels of the whole.
    """
    return int(np.clip(above + 10.5 * n, least, max(720.0, above + 2.6 * n)))


def row_look(n: int) -> dict[str, Any]:
    """Return the room between the rows of a heat map, and the size of a row's handle, by the number of rows."""
    return {"ygap": 0.6, "handle": 9} if n < THIN_FROM else {"ygap": 0, "handle": 4}


def modules_of_cells(axis: str, places: Iterable[float], positions: Iterable[int]) -> dict[str, Any]:
    """Return what a heat map says of its modules to the browser, which tells the server of a click on a cell.

    Args:
        axis: along which the modules are, `x` or `y`.
        places: of the modules on that axis.
        positions: of the modules as recorded.
    """
    return {"axis": axis, "places": [float(place) for place in places], "positions": [int(one) for one in positions]}


def modules_of_bands(ends: Sequence[str], targets: Sequence[str], positions: Mapping[str, int]) -> dict[str, list[int]]:
    """Return what a flow says of its modules to the browser: -1 where an end or the target of a band is none.

    Args:
        ends: labels in their order.
        targets: label of the target of each band.
        positions: of the modules as recorded, by label.
    """
    places = {"ends": ends, "bands": targets}
    return {name: [int(positions.get(label, -1)) for label in labels] for name, labels in places.items()}


@dataclass(frozen=True)
class MapView:
    """What a map of modules and steps shows beside its values.

    Attributes:
        title: what the colour means, for the bar.
        unit: its unit.
        step: the chosen step, a line through everything; None for none.
        module: name of the module to mark; None for none.
        events: steps of the reallocations.
        centre: the neutral value of a diverging scale; None for a scale from zero.
        choices: names of the values 0, 1, 2, ... where they are choices, a colour each; empty for amounts.
        grouping: whether equal values mean that modules belong together: a colour a group, and no scale.
        least: values that differ from the centre by less have hardly a colour.
        needed: names of the rows that are known to need rank.
        end: value of the strongest colour, where that is one for all runs: what is above has it too; None for the
            highest value.
        is_score: whether it is measured about a module, which has another hue than its rank.
    """

    title: str
    unit: str = ""
    step: int | None = None
    module: str | None = None
    events: Sequence[int] = ()
    centre: float | None = None
    choices: Sequence[str] = ()
    grouping: bool = False
    least: float = 1e-3
    needed: Collection[str] = ()
    end: float | None = None
    is_score: bool = False


def row_edges(labels: pd.Series) -> tuple[np.ndarray, np.ndarray]:
    """Return (edges of all rows and gaps, centres of the rows) of rows in groups by label, from 0 downward.

    Among many rows the gaps are whole rows, where groups have room for that: see `even_cells`.
    """
    breaks = (labels.ne(labels.shift()).to_numpy()) & (np.arange(len(labels)) > 0)
    of_a_group = len(labels) / (1 + np.count_nonzero(breaks))
    edges, centres, gap = [0.0], [], max(GAP, min(GAP_SHARE * len(labels), of_a_group / 4))
    if len(labels) >= THIN_FROM and gap > 0.75:
        gap = round(gap)
    for is_new in breaks:
        if is_new:
            edges.append(edges[-1] + gap)
        centres.append(edges[-1] + 0.5)
        edges.append(edges[-1] + 1)
    return np.array(edges), np.array(centres)


def with_gaps(rows: np.ndarray, labels: pd.Series) -> np.ndarray:
    """Return rows of a map with an empty one between groups, as `row_edges` leaves room for."""
    breaks = np.flatnonzero(labels.ne(labels.shift()).to_numpy())[1:]
    return np.insert(rows, breaks, np.nan, axis=0) if len(breaks) else rows


def even_cells(z: np.ndarray, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return cells between edges as cells of one size, where that shows the same; else as they are.

    A browser draws cells of one size as the pixels of an image, others one by one: of a large map that takes most of
    the time until it is on screen. A gap of several rows becomes as many rows. Bins of the store differ by a few steps;
    they get one width where the middle of each stays within its bin.

    Args:
        z: values, rows by columns.
        x: edges of the columns.
        y: edges of the rows, from 0 downward.
    """
    heights = np.diff(y)
    if (heights != np.round(heights)).any():
        return z, x, y
    even = np.linspace(x[0], x[-1], len(x))
    even += (np.min(x - even) + np.max(x - even)) / 2
    middles = (even[1:] + even[:-1]) / 2
    if ((middles < x[:-1]) | (middles > x[1:])).any():
        return z, x, y
    return np.repeat(z, heights.astype(int), axis=0), even, np.arange(y[-1] + 1)


def grouped(values: pd.DataFrame) -> pd.DataFrame:
    """Return groups as small numbers: what is alone is 0, the others count from 1 by their first member."""
    rows = values.to_numpy(float).copy()
    for column in rows.T:
        names, place, sizes = np.unique(column, return_inverse=True, return_counts=True)
        shared = np.cumsum(sizes > 1) * (sizes > 1)
        column[:] = np.where(np.isfinite(names[place]), shared[place], np.nan)
    return pd.DataFrame(rows, values.index, values.columns)


def map_bar(title: str, colours: Palette, **more: Any) -> dict[str, Any]:
    """Return the colour bar of a map, at the bottom of its right side; see `theme.colour_bar`."""
    heading = {"text": plotly_text(title), "side": "right", "font": {"size": 11}}
    return theme.colour_bar("", colours, title=heading, y=0.0, yanchor="bottom", x=1.015, **more)


def _discrete(highest: int, names: Sequence[str], view: MapView, colours: Palette) -> dict[str, object]:
    """Return a colour for each of the values 0 to `highest`, named on the bar; 0 is the quiet one."""
    steps = [colours.sunken, *(theme.CATEGORICAL[i % len(theme.CATEGORICAL)] for i in range(highest))]
    edges = np.linspace(0, 1, len(steps) + 1)
    scale = [[edge, colour] for i, colour in enumerate(steps) for edge in (edges[i], edges[i + 1])]
    bar = {
        **map_bar(view.title, colours, len=0.6),
        "tickmode": "array",
        "tickvals": list(range(len(names))),
        "ticktext": [plotly_text(name, 24) for name in names],
    }
    return {"colorscale": scale, "zmin": -0.5, "zmax": highest + 0.5, "colorbar": bar}


def colour_of(values: pd.DataFrame, view: MapView, colours: Palette, length: float = 0.5) -> dict[str, Any]:
    """Return the scale of a map and its bar: a colour each for choices and groups, else from zero or about a centre.

    Args:
        values: all that the colours reach over.
        view: what they mean.
        colours: of the mode.
        length: of the bar, as a fraction of the map; half of a low map has no room for the ticks.
    """
    finite = values.to_numpy(float)
    finite = finite[np.isfinite(finite)]
    high = float(finite.max()) if len(finite) else 1.0
    if view.choices:
        return _discrete(max(len(view.choices) - 1, int(high)), view.choices, view, colours)
    if view.grouping:
        return _discrete(max(1, int(high)), ("alone",), view, colours)
    bar = map_bar(view.unit or view.title, colours, len=length, nticks=5, exponentformat="power")
    if view.centre is None:
        scale = colours.score_scale if view.is_score else colours.sequential_scale
        if view.end is not None:
            words = [f"{share * view.end:.1f}".removesuffix(".0") for share in (0, 0.5, 1)]
            words[-1] += " or more" if high > view.end else ""
            bar |= {"tickmode": "array", "tickvals": [0, view.end / 2, view.end], "ticktext": words}
        end = view.end or (high if high > 0 else 1.0)
        return {"colorscale": scale, "zmin": 0, "zmax": end, "colorbar": bar}
    reach = max(float(np.abs(finite - view.centre).max()) if len(finite) else 0.0, view.least)
    low, high = view.centre - reach, view.centre + reach
    return {"colorscale": colours.diverging_scale, "zmin": low, "zmax": high, "colorbar": bar}


def bar_room(scale: Mapping[str, Any]) -> int:
    """Return the pixels that a map's bar takes at the right: plotly draws a map again that turns out to need more.

    Args:
        scale: as `colour_of` returns it.
    """
    bar, names = scale["colorbar"], scale["colorbar"].get("ticktext")
    if names is not None:
        return BESIDE_BAR + max((6 * len(name) for name in names), default=0)
    words = _tick_words(float(scale["zmin"]), float(scale["zmax"]), bar["nticks"])
    return BESIDE_BAR + max(round(7 * len(word) - 3.5 * word.count(".")) for word in words)


def _tick_words(low: float, high: float, most: int) -> list[str]:
    """Return what plotly writes at a bar from `low` to `high` in about `most` steps, powers as digits."""
    rough = (high - low) / most
    unit = 10.0 ** np.floor(np.log10(rough))
    step = next(times * unit for times in (1, 2, 5, 10) if times * unit >= 0.999 * rough)
    ticks = step * np.arange(np.ceil(low / step), high / step + 1e-9)
    power = int(np.floor(np.log10(max(abs(low), abs(high))) + 0.01))  # as plotly's autoTickRound
    power, tail = (power, f"×10{power}") if abs(power) > 3 else (0, "")
    return [f"{tick / 10.0**power:.6g}{tail}" for tick in ticks]


def label_rows(drawn: go.Figure, modules: pd.DataFrame, centres: np.ndarray, colours: Palette) -> None:
    """Name every row for the pointer (as ticks that are not shown) and every group for the eye."""
    names = [
        f"{plotly_text(short)}<br>{plotly_text(name)}"
        for short, name in zip(modules["short"], modules["name"], strict=True)
    ]
    drawn.update_yaxes(tickmode="array", tickvals=centres, ticktext=names, showticklabels=False)
    groups: list[tuple[str, list[tuple[float, str]]]] = []
    for label, side, centre in zip(modules["group"], modules["side"], centres.tolist(), strict=True):
        if not groups or groups[-1][0] != label:
            groups.append((label, []))
        groups[-1][1].append((centre, side))
    place = {"x": 0, "xref": "paper", "xanchor": "right", "yref": "y", "showarrow": False}
    words: list[dict[str, Any]] = []  # added at once: plotly checks all it has again with each one that is added
    height: Any = drawn.layout["height"]
    room = LABEL * (float(centres[-1]) + 0.5) / (0.8 * (height or 400)) if len(centres) else 0.0
    last = -np.inf
    for label, part in groups:
        font, middle = {"size": 12, "color": colours.text}, sum(centre for centre, _ in part) / len(part)
        if middle - last >= room:
            last = middle
            words.append({**place, "xshift": -20, "y": middle, "text": plotly_text(label, 24), "font": font})
        sides = [(centre, side) for centre, side in part if side]
        for end, (centre, side) in zip(("top", "bottom"), [sides[0], sides[-1]] if sides else [], strict=False):
            font = {"size": 9, "color": colours.muted}
            edge = {} if len(modules) < THIN_FROM else {"yanchor": end}  # else the ends of two groups overlap
            words.append({**place, **edge, "xshift": -5, "y": centre, "text": plotly_text(side, 6), "font": font})
    drawn.update_layout(annotations=words)


def frame_module(
    drawn: go.Figure, modules: pd.DataFrame, centres: np.ndarray, module: str | None, colours: Palette
) -> None:
    """Frame the row of one module; `centres` holds where the rows are, None frames nothing."""
    for centre in centres[(modules["name"] == module).to_numpy()][:1]:
        drawn.add_shape(
            type="rect",
            xref="paper",
            x0=0,
            x1=1,
            yref="y",
            y0=centre - 0.5,
            y1=centre + 0.5,
            line={"color": colours.second, "width": 1.6},
        )


NEEDED = "Needs rank"
"""What a legend calls the outline of modules that are known to need rank."""

LEGEND = 24
"""Pixels of a legend above a figure."""


def outline(drawn: go.Figure, boxes: Sequence[tuple[float, float, float, float]], colours: Palette) -> None:
    """Outline parts of a map that are known to need rank, and say so in a legend above; nothing without any.

    Args:
        drawn: has no other legend.
        boxes: left, right, upper and lower end of each part, on the axes.
        colours: of the mode.
    """
    if not boxes:
        return
    line = {"color": colours.needed, "width": 1.8}
    shapes = [{"type": "rect", "x0": x0, "x1": x1, "y0": y0, "y1": y1, "line": line} for x0, x1, y0, y1 in boxes]
    drawn.update_traces(showlegend=False)
    drawn.add_scatter(
        x=[None],
        y=[None],
        mode="markers",
        name=NEEDED,
        marker={"symbol": "square-open", "size": 10, "color": colours.needed, "line": {"width": 2}},
    )
    layout: Any = drawn.layout
    drawn.update_layout(
        shapes=[*layout.shapes, *shapes],
        showlegend=True,
        height=layout.height + LEGEND,
        margin={"t": layout.margin.t + LEGEND},
    )
