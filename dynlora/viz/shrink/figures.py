"""The figures of the Shrink page: the cost of each size, and the model at one of them."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go

from dynlora.store.compressions import FEWEST, Compressed, Half, Size
from dynlora.store.summary import CALLBACK
from dynlora.text import percent, plotly_text, plural, score, signed
from dynlora.viz.kit import theme
from dynlora.viz.kit.panel import Picture
from dynlora.viz.kit.theme import Palette
from dynlora.viz.shrink import model as shrink_model
from dynlora.viz.shrink.model import METHODS, TITLES, empty_modules, kept_share, score_of

DASHES = {"global": "solid", "uniform": "dash", "energy": "dashdot", "random": "dot"}
TICKS = (1, 2, 5, 10, 20, 50, 100)
"""Percent of the parameters that the axis names."""


def curve(points: pd.DataFrame, share: float, tolerance: float, colours: Palette) -> go.Figure:
    """Draw the loss change over the kept fraction of the parameters, a line for each way to choose.

    Args:
        points: as `model.points` returns them.
        share: that is chosen, 0 to 1.
        tolerance: nats that count as none.
        colours: of the mode.
    """
    drawn = theme.figure(colours, 340)
    ink = dict(zip(METHODS, (colours.accent, colours.second, *theme.CATEGORICAL[2:4]), strict=True))
    for method in METHODS:
        part = points[points["method"] == method].sort_values("share")
        if part.empty:
            continue
        if method == METHODS[0]:
            _band(drawn, part, ink[method])
        drawn.add_scatter(
            x=100 * part["share"],
            y=part["difference"],
            mode="lines+markers",
            name=plotly_text(TITLES[method]),
            line={"color": ink[method], "dash": DASHES[method], "width": 2.4 if method == METHODS[0] else 1.5},
            marker={"size": 6 if method == METHODS[0] else 4},
            customdata=part[["parameters", "low", "high"]],
            hovertemplate="%{x:.1f} % of the parameters (%{customdata[0]:,})<br>%{y:+.4f} nats "
            "(%{customdata[1]:+.4f} to %{customdata[2]:+.4f})<extra>%{fullData.name}</extra>",
        )
    drawn.add_hline(y=0, line={"color": colours.muted, "width": 1})
    drawn.add_hline(y=tolerance, line={"color": colours.muted, "width": 1, "dash": "dot"})
    drawn.add_vline(x=100 * share, line={"color": colours.text, "width": 1.4})
    ticks = [tick for tick in TICKS if tick >= 100 * points["share"].min() * 0.7]
    drawn.update_xaxes(
        type="log", title_text="Parameters kept (%)", tickmode="array", tickvals=ticks, ticktext=list(map(str, ticks))
    )
    drawn.update_yaxes(title_text="Loss change (nats)")
    drawn.update_layout(showlegend=True)
    _zoom(drawn, points)
    return drawn


def _band(drawn: go.Figure, part: pd.DataFrame, colour: str) -> None:
    """Draw the interval of the line that is offered."""
    x = pd.concat([100 * part["share"], 100 * part["share"][::-1]])
    y = pd.concat([part["high"], part["low"][::-1]])
    drawn.add_scatter(
        x=x,
        y=y,
        mode="lines",
        fill="toself",
        fillcolor=theme.faded(colour, 0.18),
        line={"width": 0},
        hoverinfo="skip",
        showlegend=False,
    )


def _zoom(drawn: go.Figure, points: pd.DataFrame) -> None:
    """Leave room for the line that is offered: random choice may cost many times as much."""
    mine = points[points["method"] == METHODS[0]]
    top, bottom = float(mine["high"].max()), float(min(mine["low"].min(), 0.0))
    reach = max(top - bottom, 1e-3)
    drawn.update_yaxes(range=[bottom - 0.08 * reach, top + 0.6 * reach])


WHAT = (
    "Takes the update of each module apart (singular values) and keeps the components with the largest effect per "
    "parameter, by one threshold over all modules. No training. Each size is measured on held-out examples."
)
"""What the page does, where nothing has been measured yet."""


def without_adapter(recorded_by: str | None) -> str:
    """Say how to get sizes where a run has no adapter.

    Args:
        recorded_by: as `queries.recorded_by` returns it.
    """
    none = "This run has no saved adapter, so no new measurement is possible. Select a run that has one, or"
    if recorded_by is None:
        return f"{none} train this one again: a run that is trained here keeps its adapter."
    if recorded_by == CALLBACK:
        return f"{none} record it again: RecordCallback keeps the adapter unless keep_adapter=False."
    return f"{none} train it here."


def headline(result: Compressed, size: Size) -> str:
    """Say what a size keeps, what that costs, and whether too few examples say so."""
    worth, seen = size.reported_on, _seen(result)
    few = f". It rests on {plural(seen, 'held-out example')}: too few to rely on." if seen < FEWEST else ""
    return (
        f"Keep {percent(kept_share(result, size), 0)} of the parameters "
        f"({size.parameters:,} of {result.parameters:,}): held-out loss {change(worth)}{_scores(result, worth)}{few}"
    )


def _seen(result: Compressed) -> int:
    """Return how many held-out examples a size is reported on."""
    return result.rows - result.rows // 2


def change(worth: Half) -> str:
    """Say how far the loss differs from that of the whole adapter."""
    return f"{signed(worth.difference, 4)} nats (95 % CI {signed(worth.low, 4)} to {signed(worth.high, 4)})"


def _scores(result: Compressed, worth: Half) -> str:
    name = score_of(result)
    if name is None or name not in worth.metrics:
        return ""
    return f"; {name.replace('_', ' ')} {score(worth.metrics[name])} against {score(result.whole.metrics[name])}"


def basis(result: Compressed, size: Size, tolerance: float) -> str:
    """Say what a size rests on: which rows it was chosen and reported on, and whether it is the one to take."""
    chosen, judged = result.smallest(tolerance), result.rows // 2
    basis_text = f"Measured on {_seen(result):,} held-out examples, which chose no size.{_unsure(size, tolerance)}"
    if chosen is None:
        return f"{basis_text} No size was shown to cost at most {tolerance:g} nats on the other {judged:,}."
    within = f"the smallest size shown to cost at most {tolerance:g} nats"
    if chosen.parameters == size.parameters:
        return f"{basis_text} It was chosen on {judged:,} others, as {within}."
    fraction = percent(kept_share(result, chosen), 0)
    side = "Larger than needed" if size.parameters > chosen.parameters else "Smaller than what was shown good enough"
    return f"{basis_text} {side}: {fraction} is {within} on {judged:,} others."


def _unsure(size: Size, tolerance: float) -> str:
    """Say that the interval of what is reported ends above a tolerance; nothing where it does not."""
    if size.reported_on.high <= tolerance:
        return ""
    return f" Its interval ends above {tolerance:g} nats, so these do not show that it costs less."


def picture(size: Size) -> str:
    """Say what the picture of the model shows."""
    gone = empty_modules(size)
    keep = "keeps" if gone == 1 else "keep"
    without = f"; {gone} of {plural(len(size.ranks), 'module')} {keep} no adapter" if gone else ""
    return f"Kept rank of each module, {min(size.ranks)} to {max(size.ranks)}{without}."


def curve_caption(result: Compressed) -> str:
    """Say what the curve shows."""
    return (
        f"Loss change against the whole adapter on {_seen(result):,} held-out examples, with 95 % CI for the threshold "
        "over all modules. Further left is smaller. At 0 a size is as good as the whole."
    )


def curve_picture(result: Compressed, size: Size, tolerance: float, colours: Palette) -> Picture:
    """Return the cost of every size, with that of the other ways to choose.

    Args:
        result: the sizes.
        size: the one that is marked.
        tolerance: nats that count as none, a line.
        colours: of the mode.
    """
    points, share = shrink_model.points(result), shrink_model.kept_share(result, size)
    return Picture(curve(points, share, tolerance, colours), curve_caption(result), points)
