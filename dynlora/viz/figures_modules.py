"""Figures of the modules at one step: the model as a picture, who gave to whom, whether rank followed importance."""

# pyright: reportArgumentType=false, reportCallIssue=false, reportGeneralTypeIssues=false
# (pandas comes without types: a column is taken for a frame and a frame for a column)
from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from dynlora.viz import theme
from dynlora.viz.capacity import FREE, RELEASED
from dynlora.viz.figures_capacity import row_edges
from dynlora.viz.labels import number, plotly_text
from dynlora.viz.theme import Palette


def model_picture(state: pd.DataFrame, uniform: int | None, module: str | None, colours: Palette) -> go.Figure:
    """Draw the model as stacked blocks, the last on top: a bar per module, its length the rank, its shade importance.

    Args:
        state: as `capacity.module_state` returns it.
        uniform: rank of uniform LoRA, a tick on every block; None for none.
        module: name of the module to mark.
        colours: of the mode.
    """
    rows = state.sort_values(["layer", "position"], ascending=[False, True], na_position="first")
    blocks = rows["layer"].map(lambda layer: "outside" if pd.isna(layer) else f"layer {layer}")
    edges, centres = row_edges(blocks)
    highest = rows["importance"].max()
    shares = rows["importance"] / highest if highest and highest > 0 else rows["importance"] * 0 + 0.55
    drawn = theme.figure(colours, int(np.clip(170 + 10.5 * len(rows), 330, 900)), left=58)
    right = max(float(rows["rank"].max()), float(uniform or 0)) * 1.06 + 0.2
    drawn.add_bar(
        x=rows["rank"], y=centres, orientation="h", width=0.86,
        marker={
            "color": [theme.shade(colours, 0.16 + 0.84 * float(s)) if s == s else colours.muted for s in shares],
            "line": {"width": [1.8 if name == module else 0 for name in rows["name"]], "color": colours.second},
        },
        customdata=[
            [plotly_text(short), plotly_text(name), number(value)]
            for short, name, value in zip(rows["short"], rows["name"], rows["importance"], strict=True)
        ],
        hovertemplate="%{customdata[0]}<br>%{customdata[1]}<br>rank %{x}<br>importance %{customdata[2]}<extra></extra>",
    )  # fmt: skip
    _draw_blocks(drawn, blocks.reset_index(drop=True), centres, uniform, right, colours)
    drawn.update_xaxes(
        title_text="rank, components", range=[0, right], fixedrange=True, showgrid=False, dtick=_ticks(right)
    )
    drawn.update_yaxes(range=[edges[-1] + 0.2, -0.2], showticklabels=False, fixedrange=True, showgrid=False)
    return drawn


def _ticks(right: float) -> int:
    return next(step for step in (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 10_000) if right / step <= 5)


def _draw_blocks(
    drawn: go.Figure, blocks: pd.Series, centres: np.ndarray, uniform: int | None, right: float, colours: Palette
) -> None:
    for block, part in pd.Series(centres).groupby(blocks.to_numpy(), sort=False):
        top, bottom = part.min() - 0.62, part.max() + 0.62
        drawn.add_shape(
            type="rect", x0=0, x1=right, y0=top, y1=bottom, layer="below", fillcolor=colours.sunken,
            line={"color": colours.hairline, "width": 1},
        )  # fmt: skip
        drawn.add_annotation(
            x=0, xref="paper", xshift=-6, xanchor="right", y=part.mean(), showarrow=False,
            text=str(block), font={"size": 11, "color": colours.muted},
        )  # fmt: skip
        if uniform:
            drawn.add_shape(
                type="line", x0=uniform, x1=uniform, y0=top, y1=bottom,
                line={"color": colours.muted, "width": 1.3, "dash": "dash"},
            )  # fmt: skip


def rank_flow(flows: pd.DataFrame, labels: Sequence[str], colours: Palette) -> go.Figure:
    """Draw who gave to whom by kind, in parameters; pale bands stayed where they were.

    Args:
        flows: as `capacity.flows` returns them.
        labels: of the kinds, in the order of their colours.
        colours: of the mode.
    """
    drawn = theme.figure(colours, 340, left=8)
    ends = [*labels, RELEASED, FREE]
    left = [label for label in ends if label in set(flows["source"])]
    right = [label for label in ends if label in set(flows["target"])]
    colour = {label: style[0] for label, style in theme.styles(labels).items()}
    place = {("left", label): i for i, label in enumerate(left)}
    place |= {("right", label): len(left) + i for i, label in enumerate(right)}
    drawn.add_sankey(
        arrangement="snap",
        node={
            "label": [plotly_text(label, 24) for label in [*left, *right]], "pad": 12, "thickness": 10,
            "color": [colour.get(label, colours.muted) for label in [*left, *right]], "line": {"width": 0},
            "hovertemplate": "%{label}: %{value:,.0f} parameters<extra></extra>",
        },
        link={
            "source": [place["left", label] for label in flows["source"]],
            "target": [place["right", label] for label in flows["target"]],
            "value": flows["parameters"].round(1), "customdata": [_flow_words(row) for _, row in flows.iterrows()],
            "color": [
                theme.faded(colour.get(source, colours.muted), 0.2 if kept else 0.72)
                for source, kept in zip(flows["source"], flows["kept"], strict=True)
            ],
            "hovertemplate": "%{customdata}<extra></extra>",
        },
        textfont={"size": 12, "color": colours.text, "shadow": "none"},
    )  # fmt: skip
    drawn.update_layout(margin={"l": 8, "r": 8, "t": 8, "b": 12})
    return drawn


def _flow_words(row: pd.Series) -> str:
    amount = f"{row['parameters']:,.0f} parameters"
    if row["kept"]:
        return f"{plotly_text(row['source'])} kept {amount}"
    return f"{plotly_text(row['source'])} → {plotly_text(row['target'])}<br>{row['components']} components, {amount}"


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
    style = theme.styles(list(dict.fromkeys(state["label"])))
    for label, part in state.groupby("label", sort=False):
        colour, symbol, _ = style[str(label)]
        drawn.add_scatter(
            x=part["importance_share"], y=part["rank_share"], mode="markers", name=plotly_text(label, 24),
            marker={
                "color": colour, "symbol": symbol, "size": [13 if name == module else 9 for name in part["name"]],
                "line": {"width": [2 if name == module else 0.6 for name in part["name"]], "color": colours.panel},
            },
            customdata=[
                [plotly_text(short), plotly_text(name), int(rank)]
                for short, name, rank in zip(part["short"], part["name"], part["rank"], strict=True)
            ],
            hovertemplate="%{customdata[0]}<br>%{customdata[1]}<br>%{x:.2f} % of importance"
            "<br>%{y:.2f} % of rank (%{customdata[2]} components)<extra></extra>",
        )  # fmt: skip
    drawn.update_xaxes(title_text="share of importance, %", rangemode="tozero")
    drawn.update_yaxes(title_text="share of rank, %", rangemode="tozero")
    drawn.update_layout(showlegend=True)
    return drawn


def module_lines(series: pd.DataFrame, title: str, unit: str, step: int | None, colours: Palette) -> go.Figure:
    """Draw one module's signal over the steps; `series` holds step and value."""
    drawn = theme.figure(colours, 190)
    drawn.add_scatter(
        x=series["step"], y=series["value"], mode="lines", line={"color": colours.accent, "width": 1.8, "shape": "hv"},
        hovertemplate=f"step %{{x}}<br>{plotly_text(title)} %{{y:.4g}}<extra></extra>",
    )  # fmt: skip
    drawn.update_xaxes(title_text="step")
    drawn.update_yaxes(title_text=plotly_text(f"{title}, {unit}" if unit else title), rangemode="tozero")
    if step is not None:
        drawn.add_vline(x=step, line={"color": colours.text, "width": 1.2})
    return drawn
