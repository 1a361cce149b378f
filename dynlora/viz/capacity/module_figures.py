"""Figures of the modules: who gave to whom, whether rank followed importance, one module over the steps."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from dynlora.analysis.flows import FREE, OTHERS, RELEASED
from dynlora.text import plotly_text, sentence_case
from dynlora.viz.kit import theme
from dynlora.viz.kit.theme import Palette


def rank_flow(flows: pd.DataFrame, labels: Sequence[str], colours: Palette) -> go.Figure:
    """Draw who gave to whom, in parameters; pale bands stayed where they were.

    Args:
        flows: as `flows.flows` returns them.
        labels: of the ends, in the order they are drawn and coloured.
        colours: of the mode.
    """
    drawn = theme.figure(colours, 340, left=8)
    flows = flows.drop(flows.index[flows["kept"] & (flows["source"] == OTHERS)])  # it would dwarf what is named
    ends = [*labels, RELEASED, FREE]
    left = [label for label in ends if label in set(flows["source"])]
    right = [label for label in ends if label in set(flows["target"])]
    colour = {label: style[0] for label, style in theme.kind_styles(labels).items() if label != OTHERS}
    place = {("left", label): i for i, label in enumerate(left)}
    place |= {("right", label): len(left) + i for i, label in enumerate(right)}
    heights = [*_middles(flows, "source", left), *_middles(flows, "target", right)]
    drawn.add_sankey(
        arrangement="fixed",  # else plotly changes the order of the ends from one look to the next
        node={
            "label": [plotly_text(label, 24) for label in [*left, *right]], "pad": 12, "thickness": 10,
            "x": [0.001] * len(left) + [0.999] * len(right), "y": heights,
            "color": [colour.get(label, colours.muted) for label in [*left, *right]], "line": {"width": 0},
            "hovertemplate": "%{label}: %{value:,.0f} parameters<extra></extra>",
        },
        link={
            "source": [place["left", label] for label in flows["source"]],
            "target": [place["right", label] for label in flows["target"]],
            "value": flows["parameters"].round(1), "customdata": [_format_flow(row) for _, row in flows.iterrows()],
            "color": [
                theme.faded(colour.get(source, colours.muted), 0.2 if kept else 0.72)
                for source, kept in zip(flows["source"], flows["kept"], strict=True)
            ],
            "hovertemplate": "%{customdata}<extra></extra>",
        },
        textfont={"size": 12, "color": colours.text, "shadow": _halo(colours.panel)},
    )  # fmt: skip
    drawn.update_layout(margin={"l": 8, "r": 8, "t": 8, "b": 12})
    return drawn


def _middles(flows: pd.DataFrame, side: str, labels: Sequence[str]) -> list[float]:
    """Return where the middle of each end of a side is, from 0 at the top to 1, in their order."""
    amounts = flows.groupby(side)["parameters"].sum().reindex(labels).to_numpy(float)
    ends = np.cumsum(amounts) / max(amounts.sum(), 1e-9)
    return np.clip(ends - amounts / max(amounts.sum(), 1e-9) / 2, 0.001, 0.999).tolist()


def _halo(colour: str) -> str:
    """Return a shadow around letters, so that a thin band behind a word does not strike it through."""
    places = [(x, y) for x in (-2, 0, 2) for y in (-2, 0, 2) if x or y]
    return ", ".join(f"{x}px {y}px 2px {colour}" for x, y in places)


def _format_flow(row: pd.Series) -> str:
    amount = f"{row['parameters']:,.0f} parameters"
    if row["kept"]:
        return f"{plotly_text(row['source'])}: {amount} were not moved"
    return f"{plotly_text(row['source'])} → {plotly_text(row['target'])}<br>{amount}"


def importance_scatter(state: pd.DataFrame, module: str | None, colours: Palette) -> go.Figure:
    """Draw the share of rank against the share of importance, a point per module, the diagonal dashed.

    Args:
        state: as `capacity.module_state` returns it.
        module: name of the module to mark.
        colours: of the mode.
    """
    drawn = theme.figure(colours, 340)
    high = float(np.nanmax([1.0, state["importance_share"].max(), state["rank_share"].max()])) * 1.06
    drawn.add_shape(
        type="line",
        x0=0,
        y0=0,
        x1=high,
        y1=high,
        line={"color": colours.muted, "width": 1, "dash": "dash"},
        layer="below",
    )
    style = theme.kind_styles(state["label"].tolist())
    for label, part in state.groupby("label", sort=False):
        colour, symbol, _ = style[str(label)]
        drawn.add_scatter(
            x=part["importance_share"], y=part["rank_share"], mode="markers", name=plotly_text(label, 24),
            marker={
                "color": colour, "symbol": symbol, "size": [13 if name == module else 9 for name in part["name"]],
                "line": {"width": [2 if name == module else 0.6 for name in part["name"]], "color": colours.panel},
            },
            customdata=[
                [plotly_text(short), plotly_text(name), int(rank), int(position)]
                for short, name, rank, position in zip(
                    part["short"], part["name"], part["rank"], part["position"], strict=True
                )
            ],
            hovertemplate="%{customdata[0]}<br>%{customdata[1]}<br>%{x:.2f} % of importance"
            "<br>%{y:.2f} % of rank (%{customdata[2]} components)<extra></extra>",
        )  # fmt: skip
    drawn.update_xaxes(title_text="Importance (% of total)", rangemode="tozero")
    drawn.update_yaxes(title_text="Rank (% of total)", rangemode="tozero")
    drawn.update_layout(showlegend=True)
    return drawn


def module_lines(series: pd.DataFrame, title: str, unit: str, step: int | None, colours: Palette) -> go.Figure:
    """Draw one module's signal over the steps; `series` holds step and value."""
    drawn = theme.figure(colours, 190)
    drawn.add_scatter(
        x=series["step"], y=series["value"], mode="lines", line={"color": colours.accent, "width": 1.8, "shape": "hv"},
        hovertemplate=f"step %{{x}}<br>{plotly_text(title)} %{{y:.4~g}}<extra></extra>",
    )  # fmt: skip
    drawn.update_xaxes(title_text="Step")
    drawn.update_yaxes(
        title_text=plotly_text(sentence_case(f"{title} ({unit})" if unit else title)), rangemode="tozero"
    )
    if step is not None:
        drawn.add_vline(x=step, line={"color": colours.text, "width": 1.2})
    return drawn


def steadiness(agreement: pd.DataFrame, colours: Palette) -> go.Figure:
    """Draw how well the order of importance agrees between one reallocation and the next.

    Args:
        agreement: columns step and value, Spearman's correlation from -1 to 1.
        colours: of the mode.
    """
    drawn = theme.figure(colours, 230)
    drawn.add_scatter(
        x=agreement["step"], y=agreement["value"], mode="lines+markers", line={"color": colours.accent, "width": 1.6},
        marker={"size": 6}, hovertemplate=("step %{x}<br>Spearman %{y:.2f} with the previous "
            "reallocation<extra></extra>"),
    )  # fmt: skip
    drawn.add_hline(y=0, line={"color": colours.muted, "width": 1, "dash": "dot"})
    low = float(agreement["value"].min()) if len(agreement) else 0.0
    drawn.update_xaxes(title_text="Step")
    drawn.update_yaxes(title_text="Spearman correlation", range=[min(-0.05, low - 0.1), 1.05])
    return drawn
