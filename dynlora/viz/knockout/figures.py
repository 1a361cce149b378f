"""Figures of ablations: what is lost without each module, by group, and against the allocator's score."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from dynlora.analysis import retention
from dynlora.analysis.retention import Agreement
from dynlora.store.measurements import Knockouts
from dynlora.store.summary import CALLBACK
from dynlora.text import plotly_text, sentence_case
from dynlora.viz.kit import theme
from dynlora.viz.kit.panel import Picture
from dynlora.viz.kit.theme import Palette

LOST = "Loss without − with the module (nats)"


def effect_bars(effect: pd.DataFrame, colours: Palette, module: str | None = None) -> go.Figure:
    """Draw the effect of each module with its interval, in the order of `effect`; those in doubt are pale.

    Args:
        effect: as `ablations.effects` returns it.
        colours: of the mode.
        module: name of the module to mark.
    """
    drawn = theme.figure(colours, 300)
    x = list(range(len(effect)))
    names = [plotly_text(name) for name in effect["short"]]
    shade = [
        (colours.accent if delta > 0 else colours.second) if sure else theme.faded(colours.muted, 0.6)
        for delta, sure in zip(effect["delta"], effect["sure"], strict=True)
    ]
    drawn.add_bar(
        x=x,
        y=effect["delta"],
        marker={
            "color": shade,
            "line": {"color": colours.text, "width": [2.0 if name == module else 0.0 for name in effect["name"]]},
        },
        customdata=[
            list(row)
            for row in zip(
                names, effect["low"], effect["high"], 100 * effect["changed"], effect["position"], strict=True
            )
        ],
        error_y=theme.interval(effect["delta"], effect, colours.muted, thickness=1, width=2),
        hovertemplate="%{customdata[0]}<br>%{y:+.5f} nats (%{customdata[1]:+.5f} to %{customdata[2]:+.5f})"
        "<br>%{customdata[3]:.1f} % of the predictions change<extra></extra>",
    )
    drawn.add_hline(y=0, line={"color": colours.muted, "width": 1})
    drawn.update_xaxes(**theme.name_axis(names, colours))
    drawn.update_yaxes(title_text=LOST)
    return drawn


def group_effects(table: pd.DataFrame, colours: Palette) -> go.Figure:
    """Draw what each input group loses without each module; rows are groups, columns modules."""
    values = table.to_numpy(float)
    reach = max(float(np.nanmax(np.abs(values))) if np.isfinite(values).any() else 0.0, 1e-6)
    drawn = theme.figure(colours, int(np.clip(170 + 34 * len(table), 240, 640)))
    names = [plotly_text(name) for name in table.columns]
    drawn.add_heatmap(
        z=values,
        x=list(range(len(names))),
        y=[plotly_text(group, 24) for group in table.index],
        zmin=-reach,
        zmax=reach,
        colorscale=colours.diverging_scale,
        hoverongaps=False,
        xgap=theme.column_gap(len(names)),
        ygap=1,
        customdata=np.tile(np.array(names, dtype=object), (len(table), 1)),
        colorbar=theme.colour_bar("Loss change (nats)", colours, nticks=5),
        hovertemplate="%{y}<br>%{customdata}<br>%{z:+.5f} nats<extra></extra>",
    )
    drawn.update_xaxes(**theme.name_axis(names, colours))
    drawn.update_yaxes(type="category", autorange="reversed", showgrid=False)
    return drawn


def score_against_effect(effect: pd.DataFrame, score: np.ndarray, title: str, colours: Palette) -> go.Figure:
    """Draw each module's score against what is lost without it, one colour a kind; `score` by module as recorded."""
    drawn = theme.figure(colours, 360)
    points = effect.assign(score=np.asarray(score, dtype=float)[effect["position"].to_numpy(int)])
    style = theme.kind_styles(points["label"].tolist())
    for label, part in points.groupby("label", sort=False):
        colour, symbol, _ = style[str(label)]
        drawn.add_scatter(
            x=part["score"],
            y=part["delta"],
            mode="markers",
            name=plotly_text(label, 24),
            marker={"color": colour, "symbol": symbol, "size": 9},
            customdata=[plotly_text(name) for name in part["short"]],
            error_y=theme.interval(part["delta"], part, colours.muted, thickness=0.8, width=0),
            hovertemplate="%{customdata}<br>score %{x:.4~g}<br>%{y:+.5f} nats without the module<extra></extra>",
        )
    drawn.add_hline(y=0, line={"color": colours.muted, "width": 1})
    drawn.update_layout(showlegend=True)
    drawn.update_xaxes(title_text=plotly_text(sentence_case(title), 60), exponentformat="power")
    drawn.update_yaxes(title_text=LOST)
    return drawn


def why_not(recorded_by: str | None) -> str:
    """Return why a run without an adapter that could be loaded here is not ablated, and where it is instead.

    Args:
        recorded_by: as `queries.recorded_by` returns it.
    """
    if recorded_by is None:
        return "This run has no saved adapter, so no new measurement is possible."
    if recorded_by == CALLBACK:
        return "This run was recorded, so it is ablated in its own script: RecordCallback(..., ablate_rows=256)."
    return "This run was recorded, and its adapter is not here, so no new measurement is possible."


def effects(knockouts: Knockouts, modules: pd.DataFrame, colours: Palette, module: str | None = None) -> Picture:
    """Return what held-out examples lose without each module, with its interval.

    Args:
        knockouts: the ablations; at least one of a module alone.
        modules: as `analysis.frames.described` returns them.
        colours: of the mode.
        module: name of the module to mark.
    """
    effect = retention.effects(knockouts, modules)
    words = retention.effect_caption(effect, len(modules), knockouts.rows)
    figure = effect_bars(effect, colours, module)
    return Picture(figure, words, effect.drop(columns="position"))


def by_group(knockouts: Knockouts, modules: pd.DataFrame, colours: Palette) -> Picture:
    """Return what each input group loses without each module; of ablations with groups."""
    groups = retention.by_group(knockouts, modules)
    words = "Blue: the group's loss rises without the module, which helps it. Orange: the module harms the group."
    return Picture(group_effects(groups, colours), words, groups.reset_index(names="group"))


def against_score(
    effect: pd.DataFrame, score: np.ndarray, name: str, colours: Palette, uniform: Agreement | None = None
) -> Picture:
    """Return a recorded score of each module against what is lost without it.

    Args:
        effect: as `ablations.effects` returns it.
        score: by module as recorded.
        name: of the score.
        colours: of the mode.
        uniform: agreement of the same score with the effects in a uniform baseline run; None without one.
    """
    figure = score_against_effect(effect, score, name, colours)
    words = retention.agreement_caption(name, retention.agreement(score, effect), uniform)
    return Picture(figure, words, effect.assign(score=score[effect["position"]]))
