"""The figure of a search: what each candidate costs in parameters and what it is worth."""

from __future__ import annotations

import plotly.graph_objects as go

from dynlora.text import plotly_text
from dynlora.viz.capacity import searches
from dynlora.viz.capacity.searches import Search
from dynlora.viz.kit import theme
from dynlora.viz.kit.theme import Palette

FIRST_SHADE = 0.3
"""Where on the sequential scale the first round stands: at zero it would look like nothing."""

FEW_ROUNDS = 10
"""Most rounds that all have their number at the bar."""


def search_scatter(found: Search, loss: str, colours: Palette) -> go.Figure:
    """Draw parameters against loss, a point a candidate in the shade of its round; limit, Pareto set and choice.

    Args:
        found: the search; at least one candidate has a loss.
        loss: title of the loss, with its unit.
        colours: of the mode.
    """
    figure = theme.figure(colours, 380)
    shown = searches.drawn(found.tried)
    best = found.tried[found.tried["pareto"]].sort_values("parameters")
    figure.add_scatter(
        x=best["parameters"], y=best["loss"], mode="lines", name="Pareto set", hoverinfo="skip",
        line={"color": colours.muted, "width": 1.2, "dash": "dot"},
    )  # fmt: skip
    figure.add_scatter(
        x=shown["parameters"], y=shown["loss"], mode="markers", name="Candidate", showlegend=False,
        customdata=shown["round"],
        marker={
            "color": shown["round"], "size": 8, "line": {"width": 0.6, "color": colours.panel},
            "colorscale": [[i / 4, theme.shade(colours, FIRST_SHADE + (1 - FIRST_SHADE) * i / 4)] for i in range(5)],
            "cmin": shown["round"].min(), "cmax": max(shown["round"].max(), shown["round"].min() + 1),
            "colorbar": {
                "title": {"text": "round", "side": "right", "font": {"size": 11}}, "thickness": 9, "len": 0.6,
                "y": 0.0, "yanchor": "bottom", "outlinewidth": 0, "x": 1.015,
                "dtick": 1 if shown["round"].max() <= FEW_ROUNDS else None,
                "tickfont": {"size": 11, "color": colours.muted},
            },
        },
        hovertemplate=f"round %{{customdata:.0f}}<br>%{{x:,.0f}} parameters<br>{plotly_text(loss)} %{{y:.4f}}"
        "<extra></extra>",
    )  # fmt: skip
    if found.limit is not None:
        figure.add_scatter(
            x=[found.limit] * 2, y=[shown["loss"].min(), shown["loss"].max()], mode="lines", name="Limit",
            line={"color": colours.text, "width": 1.2, "dash": "dash"},
            hovertemplate="Limit: %{x:,.0f} parameters<extra></extra>",
        )  # fmt: skip
    if found.chosen is not None:
        figure.add_scatter(
            x=[found.chosen[0]], y=[found.chosen[1]], mode="markers", name="Chosen",
            marker={"color": colours.second, "size": 14, "symbol": "star", "line": {"width": 1, "color": colours.text}},
            hovertemplate=f"Chosen<br>%{{x:,.0f}} parameters<br>{plotly_text(loss)} %{{y:.4f}}<extra></extra>",
        )  # fmt: skip
    figure.update_layout(showlegend=True)
    figure.update_xaxes(title_text="Parameters of the candidate", tickformat=",", nticks=6)
    figure.update_yaxes(title_text=plotly_text(loss))
    return figure
