"""What the meta-LoRA learned: few-shot accuracy, its synthetic episodes, and the prototypes of the classes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from dynlora.kinds.recycle import result
from dynlora.store import queries
from dynlora.text import listed, percent, plotly_text, score
from dynlora.viz.kit import theme
from dynlora.viz.kit.panel import Panel, RunView
from dynlora.viz.kit.theme import Palette


@dataclass(frozen=True)
class FewShotResult:
    """Accuracy by method and number of examples, and its paired differences from the base model's."""

    accuracy: pd.DataFrame
    against_base: pd.DataFrame


class FewShotAccuracy(Panel[FewShotResult]):
    """Nearest class mean of a few examples, by method."""

    id = "accuracy"
    order = 1
    title = "Few-shot accuracy"
    about = "Nearest class mean of a few examples, without training"
    missing = "The test comes after the last episode."
    is_wide = True

    def data(self, view: RunView) -> FewShotResult | None:
        """Return the accuracies of the test."""
        tested = FewShotResult(*map(result.accuracy_frame, (view.result.accuracy, view.result.against_base)))
        return None if tested.accuracy.empty else tested

    def caption(self, data: FewShotResult) -> str:
        """Return the best method at each number of examples."""
        best = []
        for shots, rows in data.accuracy.groupby("shots"):
            top = rows[rows["mean"] == rows["mean"].max()]
            best.append(f"{shots}-shot {listed(top['name'].tolist())} with {percent(top['mean'].iloc[0])}")
        return f"Highest: {'; '.join(best)}. Bars: 95 % CI over episodes. All methods saw the same episodes."

    def table(self, data: FewShotResult) -> pd.DataFrame:
        """Return every mean with its interval."""
        return data.accuracy.drop(columns="method")

    def figure(self, data: FewShotResult, colours: Palette) -> go.Figure:
        """Draw the means with their intervals, a row for each number of examples."""
        frame = data.accuracy
        shots = sorted(frame["shots"].unique())
        names = list(dict.fromkeys(frame["name"]))[::-1]
        drawn = make_subplots(
            rows=len(shots), cols=1, vertical_spacing=min(0.16 / len(shots) + 0.1, 0.9 / max(1, len(shots) - 1))
        )
        drawn.update_layout(theme.figure(colours, (90 + 26 * len(names)) * len(shots), left=150).layout)
        for place, number in enumerate(shots, 1):
            part = frame[frame["shots"] == number]
            drawn.add_scatter(
                x=part["mean"],
                y=[plotly_text(name) for name in part["name"]],
                mode="markers",
                row=place,
                col=1,
                marker={
                    "size": 10,
                    "color": [colours.accent if one == result.META else colours.muted for one in part["method"]],
                },
                error_x=theme.interval(part["mean"], part, colours.muted),
                hovertemplate="%{y}: %{x:.1%}<extra></extra>",
                showlegend=False,
            )
            look = {
                **theme.axis(colours),
                "title": theme.axis_title(f"Accuracy, {number}-shot", colours),
                "tickformat": ".0%",
            }
            drawn.update_xaxes(**look, row=place, col=1)
            drawn.update_yaxes(**theme.axis(colours), categoryorder="array", categoryarray=names, row=place, col=1)
        return drawn

    def more(self, data: FewShotResult) -> Mapping[str, pd.DataFrame]:
        """Return the differences from the base model."""
        gaps = data.against_base.drop(columns="method").rename(columns={"name": "method"})
        return {"Difference from the base model, paired over episodes": gaps} if len(gaps) else {}


class Episodes(Panel[pd.DataFrame]):
    """Accuracy on the queries of each episode."""

    id = "episodes"
    order = 5
    title = "Episodes"
    about = "Accuracy on the queries of synthetic episodes"
    missing = "No episode yet."

    def data(self, view: RunView) -> pd.DataFrame | None:
        """Return the accuracy of each episode with its band, as `frames.episodes_frame` does."""
        scalars = view.store.ask(queries.scalars_frame, view.folder, None, None, result.POINTS)
        frame = result.episodes_frame(scalars)
        return None if frame.empty else frame

    def caption(self, data: pd.DataFrame) -> str:
        """Return the first and the last mean."""
        first, last = data["mean"].iloc[0], data["mean"].iloc[-1]
        return (
            f"Accuracy on the queries of synthetic episodes, from {score(first)} to {score(last)} over {len(data):,} "
            f"episodes. Band: one standard deviation over {result.WINDOW} episodes. It says nothing about real texts."
        )

    def figure(self, data: pd.DataFrame, colours: Palette) -> go.Figure:
        """Draw the mean with its band."""
        drawn = theme.figure(colours, 260)
        x = pd.concat([data["step"], data["step"][::-1]])
        y = pd.concat([data["high"], data["low"][::-1]])
        drawn.add_scatter(
            x=x,
            y=y,
            mode="lines",
            fill="toself",
            fillcolor=theme.faded(colours.accent, 0.18),
            line={"width": 0},
            hoverinfo="skip",
        )
        drawn.add_scatter(
            x=data["step"],
            y=data["value"],
            mode="markers",
            marker={"color": theme.faded(colours.muted, 0.4), "size": 4},
            hovertemplate="step %{x}: %{y:.0%}<extra></extra>",
        )
        drawn.add_scatter(
            x=data["step"], y=data["mean"], mode="lines", line={"color": colours.accent, "width": 1.8}, hoverinfo="skip"
        )
        drawn.update_xaxes(title_text="Step")
        drawn.update_yaxes(title_text="Accuracy on queries", tickformat=".0%", range=[0, 1.05])
        return drawn


class Prototypes(Panel[pd.DataFrame]):
    """Class means of the synthetic inputs in their first two principal components."""

    id = "prototypes"
    order = 7
    title = "Map of the prototypes"
    missing = "The map appears at the end of the recycle."

    def data(self, view: RunView) -> pd.DataFrame | None:
        """Return columns teacher, class, x, y."""
        frame = result.places_frame(view.result)
        return None if frame.empty else frame

    def caption(self, data: pd.DataFrame) -> str:
        """Return what the points are."""
        return (
            f"{len(data):,} prototypes (class means of the synthetic inputs) in their first two principal components. "
            "Classes that are close together are easily confused."
        )

    def figure(self, data: pd.DataFrame, colours: Palette) -> go.Figure:
        """Draw the points, a colour for each teacher."""
        drawn = theme.figure(colours, 320)
        looks = theme.styles(sorted(set(data["teacher"])))
        sides = _label_sides(data)
        for teacher, part in data.groupby("teacher", sort=False):
            colour, symbol, _ = looks[str(teacher)]
            names = [plotly_text(name, 40) for name in part["class"]]
            drawn.add_scatter(
                x=part["x"],
                y=part["y"],
                name=plotly_text(teacher, 40),
                text=names,
                mode="markers+text" if len(data) <= result.MOST_NAMED else "markers",
                textposition=sides[part.index].tolist(),
                cliponaxis=False,
                textfont={"size": 10, "color": colours.muted},
                marker={"color": colour, "symbol": symbol, "size": 9},
                hovertemplate="%{text}<extra>%{fullData.name}</extra>",
            )
        drawn.update_xaxes(title_text="First principal component", showticklabels=False, range=_wide(data["x"]))
        drawn.update_yaxes(title_text="Second principal component", showticklabels=False, range=_wide(data["y"]))
        drawn.update_layout(showlegend=len(looks) <= result.MOST_NAMED)
        return drawn


NEAR = 0.12
"""Part of the map's width or height within which the labels of two points would cover each other."""


def _label_sides(data: pd.DataFrame) -> pd.Series:
    """Return where the label of each point is: above it, or below one that has another near it."""
    places = data[["x", "y"]].to_numpy(float)
    extent = np.ptp(places, axis=0)
    scaled = places / np.where(extent > 0, extent, 1.0)
    sides: list[str] = []
    for number, place in enumerate(scaled):
        near = (np.abs(scaled[:number] - place) < NEAR).all(axis=1)
        above = any(sides[other] == "top center" for other in np.flatnonzero(near))
        sides.append("bottom center" if above else "top center")
    return pd.Series(sides, index=data.index)


def _wide(values: pd.Series) -> list[float]:
    """Return a range with room for the labels of the outermost points."""
    low, high = float(values.min()), float(values.max())
    room = 0.14 * (high - low or 1.0)
    return [low - room, high + room]
