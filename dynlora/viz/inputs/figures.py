"""Figures of the Inputs page: which groups open which gates, how groups fare, and the probe set in the plane."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import plotly.graph_objects as go

from dynlora.analysis.frames import at_highest
from dynlora.analysis.gate_effect import GateEffect
from dynlora.text import one_line, plotly_text, plural, score, sentence_case
from dynlora.viz.kit import theme
from dynlora.viz.kit.theme import Palette


def conclusion(
    groups: pd.DataFrame, metric: str, n: int | None, effect: GateEffect | None, *, gated: bool, low_is_good: bool
) -> str:
    """Say how far the groups differ in their result, and whether the gates tell them apart.

    Args:
        groups: columns group and metric.
        metric: what is recorded of each group.
        n: held-out examples that were evaluated; None when that is not known.
        effect: of the groups on the gates.
        gated: whether the run has gates.
        low_is_good: whether less of the metric is better.
    """
    known = groups.dropna(subset=["metric"])
    if known.empty:
        return f"This run has no results by input group. {_gates_tell(effect, gated=gated)}"
    where = f"{plural(len(known), 'input group')}{'' if n is None else f', n = {n:,} held-out examples'}"
    ordered = known.sort_values("metric", ascending=low_is_good, kind="stable")
    best, worst = ordered.iloc[0], ordered.iloc[-1]
    name, (high, low) = one_line(sentence_case(metric), 40), (score(best["metric"]), score(worst["metric"]))
    if len(known) == 1:
        group = one_line(best["group"], 40)
        tell = _gates_tell(effect, gated=gated)
        return f"{name} is {high} in the one group, {group} ({where}). {tell} Set data.group_by to compare groups."
    if high == low:
        return f"{name} is {high} for all groups ({where}). {_gates_tell(effect, gated=gated)}"
    extremes = f"best for {one_line(best['group'], 40)} ({high}) and worst for {one_line(worst['group'], 40)} ({low})"
    return f"{name} is {extremes}: {where}. {_gates_tell(effect, gated=gated)}"


def _gates_tell(effect: GateEffect | None, *, gated: bool) -> str:
    """Say whether the gates distinguish the groups, with the number of examples."""
    if not gated:
        return "The run has no gates: its adapters treat every input alike."
    if effect is None:
        return "The gates cannot be compared: fewer than two groups have examples in the probe set."
    n = f"n = {effect.examples} probe examples"
    if not effect.is_significant.any():
        return f"No gate differs between the groups beyond chance ({n})."
    different, gates = int(effect.is_significant.sum()), len(effect.is_significant)
    return f"{different} of {gates} gates differ between the groups beyond chance ({n})."


def probe(examples: pd.DataFrame) -> str:
    """Say how many probe examples are shown and how many the model gets wrong."""
    known = examples.dropna(subset=["loss"])
    if known.empty:
        return f"{len(examples)} examples, not yet evaluated."
    hardest = known.loc[at_highest(known["loss"])]
    return (
        f"{len(examples)} probe examples, a fixed sample of the held-out ones: mean loss "
        f"{known['loss'].mean():.3f} nats; highest loss {hardest['loss']:.2f}."
    )


def depth(lines: pd.DataFrame) -> str:
    """Say where the gates of the chosen examples differ most over depth; columns example, layer, gate."""
    spread = lines.groupby("layer")["gate"].agg(lambda values: values.max() - values.min())
    count = lines["example"].nunique()
    if count < 2:
        return (
            f"One example; its mean gate ranges from {lines['gate'].min():.3f} to {lines['gate'].max():.3f} "
            "over the layers."
        )
    return f"{count} examples; their mean gates differ most in layer {spread.idxmax()}, by {spread.max():.3f}."


def probe_scatter(
    examples: pd.DataFrame,
    by: str,
    colours: Palette,
    groups: Sequence[str] = (),
    *,
    chosen: Sequence[int] = (),
    title: str = "",
    axes: tuple[str, str] = ("First principal component", "Second principal component"),
) -> go.Figure:
    """Draw the probe set in the plane.

    Args:
        examples: columns text, group, x, y, loss, prediction; maybe one with numbers to colour by.
        by: `group` and `prediction` colour by name, any other column by its number.
        colours: of the mode.
        groups: names of the groups in the order of their colours, the same as in the other charts.
        chosen: positions of the examples to mark; the others fade.
        title: of the colour bar.
        axes: titles of both axes.
    """
    drawn = theme.figure(colours, 400)
    if by in ("group", "prediction"):
        names = examples[by].astype(str)
        style = theme.contrasting(list(dict.fromkeys([*(groups if by == "group" else []), *names])))
        for name, part in examples.groupby(names, sort=False):
            colour, symbol, _ = style[str(name)]
            drawn.add_scatter(**_points(part), name=plotly_text(name, 24), marker={"color": colour, "symbol": symbol})
        drawn.update_layout(showlegend=True)
    else:
        is_gate = by == "gate"
        scale = colours.diverging_scale if is_gate else colours.sequential_scale
        reach = max(float((examples[by] - 1).abs().max()), 1e-3) if is_gate else 0.0
        marker = {"colorscale": scale, "showscale": True, "color": examples[by], "cmin": 1 - reach if is_gate else 0}
        bar = {
            "title": {"text": plotly_text(sentence_case(title or by)), "side": "right"},
            "thickness": 9,
            "outlinewidth": 0,
        }
        drawn.add_scatter(**_points(examples), marker={**marker, "colorbar": bar})
        if is_gate:
            drawn.update_traces(marker={"cmax": 1 + reach})
    drawn.update_traces(marker={"size": 8, "opacity": 0.9, "line": {"width": 0.6, "color": colours.muted}})
    if chosen:
        drawn.for_each_trace(
            lambda trace: trace.update(
                selectedpoints=[i for i, row in enumerate(trace.customdata) if row[0] in set(chosen)]
            )
        )
        drawn.update_traces(unselected={"marker": {"opacity": 0.25}})
    drawn.update_xaxes(title_text=axes[0], zeroline=False)
    drawn.update_yaxes(title_text=axes[1], zeroline=False)
    return drawn


def _points(examples: pd.DataFrame) -> dict[str, object]:
    words = [
        [int(position), _wrapped(text), plotly_text(group, 24), "–" if loss != loss else f"{loss:.3f}"]
        for position, text, group, loss in zip(
            examples.index,
            examples["text"],
            examples["group"],
            examples["loss"],
            strict=True,
        )
    ]
    return {
        "x": examples["x"],
        "y": examples["y"],
        "mode": "markers",
        "customdata": words,
        "hovertemplate": "%{customdata[1]}<br>%{customdata[2]}, loss %{customdata[3]} nats<extra></extra>",
    }


def gates_over_depth(depth: pd.DataFrame, colours: Palette) -> go.Figure:
    """Draw the mean gate of each layer for some examples; columns example, layer, gate."""
    drawn = theme.figure(colours, 260)
    style = theme.contrasting(list(dict.fromkeys(depth["example"])))
    for example, part in depth.groupby("example", sort=False):
        colour, symbol, dash = style[str(example)]
        drawn.add_scatter(
            x=part["layer"],
            y=part["gate"],
            mode="lines+markers",
            name=plotly_text(sentence_case(str(example)), 32),
            line={"color": colour, "width": 1.6, "dash": dash},
            marker={"symbol": symbol, "size": 7},
            hovertemplate="%{fullData.name}<br>layer %{x}: gate %{y:.4f}<extra></extra>",
        )
    drawn.add_hline(y=1, line={"color": colours.muted, "width": 1, "dash": "dot"})
    drawn.update_layout(showlegend=True)
    drawn.update_xaxes(title_text="Layer", dtick=1 if depth["layer"].nunique() <= 16 else None)
    drawn.update_yaxes(title_text="Mean gate (factor)")
    return drawn


def _wrapped(text: str, width: int = 56) -> str:
    short = str(text)[:220]
    return "<br>".join(plotly_text(short[start : start + width]) for start in range(0, max(len(short), 1), width))
