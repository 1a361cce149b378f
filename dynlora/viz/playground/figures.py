"""Figures of the Playground and of shifted inputs: answers side by side, modules that carry one, gates that move."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from dynlora.kinds.train.panels.effects import map_around
from dynlora.kinds.train.panels.inputs import gate_map
from dynlora.text import one_line, plotly_text
from dynlora.viz.kit import theme
from dynlora.viz.kit.theme import Palette
from dynlora.viz.kit.token_text import TextToken


def words(tokens: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return what is written for each token: its text, the model's own tokens in brackets as they are."""
    return [one_line(token["text"], 40) or "·" for token in tokens]


def lines_of(
    tokens: Sequence[Mapping[str, Any]], rows: Mapping[str, Sequence[float | None]], unit: str = ""
) -> dict[str, list[TextToken]]:
    """Return a line of tokens for each row of numbers, which a pointer shows with their unit.

    Args:
        tokens: as an explanation lists them: text and part.
        rows: a number for each token, by the name of the row; None leaves a token bare.
        unit: of the numbers.
    """
    return {
        name: [
            TextToken(f"{word} ", value, "" if value is None else f"{value:.4g} {unit}".strip())
            for word, value in zip(words(tokens), values, strict=False)
        ]
        for name, values in rows.items()
    }


def thinned(rows: Mapping[str, Sequence[float | None]], most: int) -> dict[str, Sequence[float | None]]:
    """Return at most `most` rows, the first, the last and some at even distances between them."""
    names = list(rows)
    places = np.unique(np.linspace(0, len(names) - 1, min(most, len(names))).round().astype(int)) if names else []
    return {names[place]: rows[names[place]] for place in places}


def contributions(tokens: Sequence[Mapping[str, Any]], explanation: Mapping[str, Any]) -> pd.DataFrame:
    """Return the tokens with what each adds: columns token, adapter, base, only adapter."""
    frame = pd.DataFrame(
        {
            "token": words(tokens),
            "adapter": pd.to_numeric(pd.Series(explanation["contribution"], dtype=float)),
            "base": pd.to_numeric(pd.Series(explanation["base_contribution"], dtype=float)),
        }
    )
    return frame.assign(**{"only adapter": frame["adapter"] - frame["base"]})


def by_layer(gate: Sequence[Sequence[float | None]], modules: pd.DataFrame) -> dict[str, list[float]]:
    """Return the mean gate of each token over the modules of a layer, by the layer's name, the lowest first.

    Args:
        gate: one row per module as recorded, one number per token.
        modules: as `capacity.described` returns them.
    """
    table = np.array([[np.nan if value is None else value for value in row] for row in gate], dtype=float)
    sums = {}
    for layer, part in modules.groupby("layer", sort=True):
        sums[f"layer {int(cast('int', layer))}"] = table[part["position"].to_numpy(int)].mean(0).tolist()
    return sums


def layers_of(moved: Sequence[Sequence[float | None]]) -> dict[str, list[float | None]]:
    """Return a row of numbers a layer by the layer's name, the lowest first."""
    return {f"layer {index}": list(row) for index, row in enumerate(moved)}


def answer_bars(frame: pd.DataFrame, colours: Palette) -> go.Figure:
    """Draw what each model answers; columns who, label, value (a probability, or the number of label `number`)."""
    who = list(dict.fromkeys(frame["who"]))
    labels = list(dict.fromkeys(frame["label"]))
    numbers = labels == ["number"]
    drawn = theme.figure(colours, int(np.clip(90 + 44 * len(who), 180, 420)), left=120)
    style = theme.contrasting(labels)
    for label in labels:
        part = frame[frame["label"] == label]
        drawn.add_bar(
            y=[plotly_text(name, 40) for name in part["who"]],
            x=part["value"] if numbers else 100 * part["value"],
            orientation="h",
            name=plotly_text(label, 24),
            marker={"color": style[label][0]},
            text=[f"{value:.3f}" if numbers else f"{100 * value:.0f} %" for value in part["value"]],
            textposition="inside",
            insidetextanchor="middle",
            hovertemplate="%{y}<br>%{fullData.name}: %{x:.2f}" + ("" if numbers else " %") + "<extra></extra>",
        )
    drawn.update_layout(barmode="stack", showlegend=not numbers, bargap=0.35, legend={"traceorder": "normal"})
    drawn.update_xaxes(title_text="Number" if numbers else "Probability (%)", range=None if numbers else [0, 100])
    drawn.update_yaxes(autorange="reversed", showgrid=False)
    return drawn


def module_bars(frame: pd.DataFrame, unit: str, colours: Palette) -> go.Figure:
    """Draw what each module adds to one answer; columns short, adds, flips. Those that flip it are marked."""
    drawn = theme.figure(colours, 280)
    names = [plotly_text(name) for name in frame["short"]]
    _add_contributions(drawn, frame, "Prediction", unit, colours)
    drawn.add_hline(y=0, line={"color": colours.muted, "width": 1})
    drawn.update_xaxes(**theme.name_axis(names, colours))
    drawn.update_yaxes(title_text=plotly_text(f"Contribution ({unit})"))
    return drawn


def _add_contributions(
    drawn: go.Figure, frame: pd.DataFrame, what: str, unit: str, colours: Palette, *, is_horizontal: bool = False
) -> None:
    """Add a bar for what each module adds; those without which `what` changes have a colour of their own.

    Args:
        drawn: the figure.
        frame: columns short, adds and flips.
        what: the modules act on.
        unit: of what they add.
        colours: of the mode.
        is_horizontal: whether the bars are.
    """
    names, adds = [plotly_text(name) for name in frame["short"]], frame["adds"].to_numpy(float)
    flips, axes = frame["flips"].to_numpy(bool), "yx" if is_horizontal else "xy"
    for part, name, colour in (
        (~flips, f"{what} does not change without it", colours.accent),
        (flips, f"{what} changes without it", colours.second),
    ):
        places = np.flatnonzero(part)
        drawn.add_bar(
            **dict(zip(axes, (places, adds[places]), strict=True)),
            orientation="h" if is_horizontal else "v",
            customdata=[names[place] for place in places],
            name=name,
            marker={"color": colour},
            hovertemplate=f"%{{customdata}}<br>%{{{axes[1]}:+.4f}} {plotly_text(unit)}<extra></extra>",
        )
    drawn.update_layout(barmode="overlay", showlegend=bool(flips.any()))


def group_gates(gates: pd.DataFrame, modules: pd.DataFrame, colours: Palette) -> go.Figure:
    """Draw the mean gate of each input group and module; as `figures_inputs.gate_map` does, which it fills."""
    drawn = gate_map(gates, modules, None, colours, hide=False)
    drawn.update_layout(height=int(np.clip(150 + 34 * len(gates), 220, 600)))
    drawn.update_traces(colorbar={"len": 1, "y": 0.5, "yanchor": "middle"})
    drawn.update_yaxes(domain=[0, 1])
    return drawn


def gate_shift(frame: pd.DataFrame, colours: Palette) -> go.Figure:
    """Draw each module's mean gate before and after; columns short, before, after."""
    drawn = theme.figure(colours, 280)
    x, names = list(range(len(frame))), [plotly_text(name) for name in frame["short"]]
    for column, colour, symbol in (("before", colours.muted, "circle-open"), ("after", colours.accent, "diamond")):
        drawn.add_scatter(
            x=x,
            y=frame[column],
            mode="markers",
            name=column,
            customdata=names,
            marker={"color": colour, "symbol": symbol, "size": 8},
            hovertemplate="%{customdata}<br>" + column + " %{y:.4f}<extra></extra>",
        )
    drawn.add_hline(y=1, line={"color": colours.muted, "width": 1, "dash": "dot"})
    drawn.update_layout(showlegend=True)
    drawn.update_xaxes(**theme.name_axis(names, colours))
    drawn.update_yaxes(title_text="Mean gate (factor)")
    return drawn


ADDS = "Contribution to log p(text) (nats)"
MOST_BARS = 24
"""Modules with a bar: the largest contributions, up or down; the map has all."""


def ablation_bars(frame: pd.DataFrame, colours: Palette) -> go.Figure:
    """Draw what the modules with the largest effect add to a text, sorted; those that change it are marked."""
    largest = frame.loc[frame["adds"].abs().sort_values(ascending=False, kind="stable").index[:MOST_BARS]]
    bars = largest.sort_values("adds", ascending=False, kind="stable")
    names = [plotly_text(name) for name in bars["short"]]
    drawn = theme.figure(colours, int(np.clip(110 + 20 * len(bars), 200, 620)), left=90)
    _add_contributions(drawn, bars, "Text", "nats", colours, is_horizontal=True)
    drawn.add_vline(x=0, line={"color": colours.muted, "width": 1})
    drawn.update_xaxes(title_text=ADDS)
    drawn.update_yaxes(
        tickmode="array", tickvals=list(range(len(names))), ticktext=names, autorange="reversed", showgrid=False
    )
    return drawn


def ablation_map(frame: pd.DataFrame, colours: Palette) -> go.Figure:
    """Draw what each module adds to a text, kinds of modules over layers."""
    return map_around(0.0, frame["adds"].to_numpy(float), frame, ("Nats", "+.4f"), colours)
