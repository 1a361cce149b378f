"""Few-shot accuracy of the meta-LoRA and of what it is compared with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from dynlora.kinds.recycle import result
from dynlora.text import listed, percent, plotly_text
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
