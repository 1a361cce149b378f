"""Figures of what an evaluation found: scores by class and group, answers before and after, the machine in use."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from dynlora.text import percent, plotly_text
from dynlora.viz.kit import theme
from dynlora.viz.kit.theme import Palette


def answer_bar(counts: pd.DataFrame, colours: Palette) -> go.Figure:
    """Draw how the predictions changed as one divided bar; columns answer and count, in the order they are drawn."""
    drawn = theme.figure(colours, 210, left=12)
    shades = (theme.faded(colours.accent, 0.35), colours.accent, colours.second, theme.faded(colours.second, 0.35))
    inks = (colours.text, colours.panel, colours.panel, colours.text)
    total = max(1, int(counts["count"].sum()))
    rows = zip(counts["answer"], counts["count"], shades, inks, strict=True)
    for answer, count, colour, ink in rows:
        drawn.add_bar(
            x=[count],
            y=[""],
            orientation="h",
            name=plotly_text(answer),
            marker={"color": colour},
            text=f"{count:,}" if count / total > 0.04 else "",
            textposition="inside",
            insidetextanchor="middle",
            textangle=0,
            textfont={"color": ink},
            hovertemplate=f"{plotly_text(answer)}: %{{x:,}} examples<extra></extra>",
        )
    drawn.update_layout(barmode="stack", bargap=0.4, showlegend=True, legend={"traceorder": "normal"})
    drawn.update_xaxes(title_text="Probe examples", range=[0, total])
    drawn.update_yaxes(showticklabels=False, showgrid=False)
    return drawn


def before_after(
    named: pd.DataFrame, before: str, after: str, unit: str, colours: Palette, *, has_classes: bool = True
) -> go.Figure:
    """Draw the loss of each probe example before against after, with the diagonal on which nothing changes.

    Args:
        named: columns first_loss, last_loss, first, last, label, text.
        before: title of the first axis, without its unit.
        after: title of the second.
        unit: of the loss.
        colours: of the mode.
        has_classes: an answer is right or wrong; numbers and texts are not.
    """
    drawn = theme.figure(colours, 320)
    wide, high = (_reach(named[column].to_numpy(float)) for column in ("first_loss", "last_loss"))
    top = max(wide[1], high[1])
    drawn.add_scatter(
        x=[0, top],
        y=[0, top],
        mode="lines",
        line={"color": colours.muted, "width": 1, "dash": "dot"},
        hoverinfo="skip",
        name="No change",
    )
    right = np.asarray(named["last"].eq(named["label"]), bool)
    both = [(True, "Correct", colours.accent, "circle"), (False, "Wrong", colours.second, "x")]
    if not has_classes:
        right, both = np.ones(len(named), bool), [(True, "Example", colours.accent, "circle")]
    for is_right, name, colour, symbol in both:
        part = named.loc[right == is_right]
        drawn.add_scatter(
            x=part["first_loss"],
            y=part["last_loss"],
            mode="markers",
            name=name,
            marker={"color": theme.faded(colour, 0.75), "symbol": symbol, "size": 7},
            text=[plotly_text(text, 90) for text in part["text"]],
            hovertemplate="%{text}<br>before %{x:.3f}, after %{y:.3f}<extra></extra>",
        )
    drawn.update_layout(showlegend=True)
    drawn.update_xaxes(title_text=f"{plotly_text(before)} ({plotly_text(unit)})", range=wide)
    drawn.update_yaxes(title_text=f"{plotly_text(after)} ({plotly_text(unit)})", range=high)
    return drawn


def _reach(losses: np.ndarray) -> tuple[float, float]:
    """Return an axis for losses: from zero, unless they all lie close together."""
    known = losses[np.isfinite(losses)]
    low, high = float(np.min(known, initial=np.inf)), float(np.max(known, initial=0.1))
    gap = 0.05 * max(high - low, 0.02) if np.isfinite(low) else 0.0
    return (low - gap if low > 0.5 * high else 0.0, high + gap)


def readings(series: pd.DataFrame, names: Mapping[str, str], title: str, colours: Palette) -> go.Figure:
    """Draw readings of the machine over time.

    Args:
        series: columns name, minutes, value.
        names: recorded name and what it is called, in the order of the colours.
        title: of the axis, with its unit.
        colours: of the mode.
    """
    drawn = theme.figure(colours, 230)
    recorded = [name for name in names if (series["name"] == name).any()]
    for name, (colour, _, dash) in theme.contrasting(recorded).items():
        part = series[series["name"] == name]
        drawn.add_scatter(
            x=part["minutes"],
            y=part["value"],
            mode="lines" if len(part) > 20 else "lines+markers",
            name=plotly_text(names[name]),
            line={"color": colour, "width": 1.8, "dash": dash},
            hovertemplate=f"%{{x:.1f}} min<br>{plotly_text(names[name])} %{{y:,.0f}}<extra></extra>",
        )
    drawn.update_layout(showlegend=len(recorded) > 1)
    drawn.update_xaxes(title_text="Minutes since the first reading")
    drawn.update_yaxes(title_text=plotly_text(title), rangemode="tozero")
    return drawn


def before_after_caption(ends: pd.DataFrame, before: str, after: str) -> str:
    """Say on how many probe examples the loss fell, and its means."""
    fell = int((ends["change"] < 0).sum())
    return (
        f"The loss is lower {after} than {before} on {fell} of {len(ends)} probe examples; the mean changed from "
        f"{ends['first_loss'].mean():.3f} to {ends['last_loss'].mean():.3f}."
    )


def answers(counts: pd.DataFrame, before: str, after: str) -> str:
    """Say the accuracy of both sides and how many answers changed, and which way; counts in the order of `ANSWERS`."""
    unchanged, won, lost, _ = (int(count) for count in counts["count"])
    total = int(counts["count"].sum())
    if not total:
        return "This run has no probe set."
    return (
        f"{before} {percent((unchanged + lost) / total)} of {total} probe predictions are correct, {after} "
        f"{percent((unchanged + won) / total)}: {won} predictions became correct, {lost} became wrong."
    )
