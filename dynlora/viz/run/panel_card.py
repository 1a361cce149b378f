"""One run beside the list of runs: how its loss and its ranks went, its result, and what can be done with it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from dynlora.analysis import run_summary
from dynlora.analysis.frames import smoothed
from dynlora.kinds.registry import registry
from dynlora.store import queries
from dynlora.text import metric_words, number, one_line, score, sentence_case
from dynlora.viz.kit import theme
from dynlora.viz.kit.charts import add_losses, titled
from dynlora.viz.kit.theme import Palette
from dynlora.viz.run.button import adapter_button
from dynlora.viz.ui import cached_queries
from dynlora.viz.ui.cards import badge, card, chart, colours, figures, note, status_line
from dynlora.viz.ui.run_actions import delete_button, move_buttons, run_buttons
from dynlora.viz.ui.run_picker import Chosen, link, links, page_of

POINTS, HEIGHT = 200, 190
"""Most points of a series, and pixels of a chart: it is as small as can be read."""


def run_panel(run: Chosen) -> None:
    """Draw a run's card for the side of the list.

    Raises:
        DynloraError: when the run cannot be read.
    """
    summary = queries.run_summary(run.folder)
    with card(one_line(summary["name"], 80), "panel", run_summary.about(summary)):
        with st.container(horizontal=True, vertical_alignment="center", gap="small", key="panel-head"):
            badge(summary["status"])
            st.caption(run_summary.format_progress(summary), width="content")
        kind = registry().get(summary["kind"])
        allocates = kind is not None and kind.allocates
        if allocates:
            links(run.id)
        elif page := page_of(summary["kind"]):
            link(page, f"Open {summary['kind']}", run=run.id)
        with st.container(horizontal=True, gap="small", key="panel-actions"):
            run_buttons(run, summary["status"])
            if allocates:
                adapter_button(run)
            if run.is_own:
                delete_button([run.id])
        if run.is_own and summary["status"] == "queued":
            move_buttons(run.id, "panel")
        status_line(summary)
        if allocates:
            _results(summary)
            _loss(run)
            _ranks(run)


def _results(summary: Mapping[str, Any]) -> None:
    """Draw the last and the best value of the metric that decides, and the parameters in use."""
    name, value = run_summary.main_metric(summary)
    used = run_summary.parameters_in_use(summary.get("params") or {})
    best = (summary.get("best") or {}).get(name)
    if value is None:
        return
    word = sentence_case(metric_words(name))
    results = {word: score(value), "Best": score(best), "Parameters in use": "–" if used is None else f"{used:,}"}
    figures(results, "figures-panel")


def _loss(run: Chosen) -> None:
    """Draw the training loss and the held-out loss."""
    scalars = cached_queries.ask(queries.scalars_frame, run.folder, "loss", None, POINTS)
    train, held_out = (run_summary.series(scalars, "loss", split) for split in ("train", "validation"))
    if train.empty:
        note("No loss has been recorded yet.")
        return
    chart(loss_figure(train, held_out, colours()), loss_caption(train, held_out), train, "panel-loss")


def _ranks(run: Chosen) -> None:
    """Draw the lowest, mean and highest rank of the modules."""
    try:
        ranks = cached_queries.ask(queries.heatmap, run.folder, "rank", POINTS, None, None).frame
    except KeyError:
        return
    span = spans_of(ranks)
    if len(span):
        chart(ranks_figure(span, colours()), ranks_caption(span), span, "panel-ranks")


def spans_of(ranks: pd.DataFrame) -> pd.DataFrame:
    """Return the lowest, mean and highest rank at each step: columns step, lowest, mean, highest.

    Args:
        ranks: one row per module, one column per step.
    """
    spans = pd.DataFrame({"lowest": ranks.min(), "mean": ranks.mean(), "highest": ranks.max()})
    return spans.dropna().rename_axis("step").reset_index()


def loss_caption(train: pd.DataFrame, held_out: pd.DataFrame) -> str:
    """Say where both losses stand; frames hold step and value."""
    known = train.dropna(subset=["value"])
    if known.empty:
        return "No loss has been recorded yet."
    words = f"Training loss {smoothed(known['value']).iloc[-1]:.3f} at step {number(int(known['step'].iloc[-1]))}"
    return f"{words}; held-out loss {held_out['value'].iloc[-1]:.3f}." if len(held_out) else f"{words}."


def ranks_caption(span: pd.DataFrame) -> str:
    """Say between which ranks the modules lie at the last step; columns step, lowest, mean, highest."""
    last = span.iloc[-1]
    low, high = number(int(last["lowest"])), number(int(last["highest"]))
    return f"Every module has rank {low}." if low == high else f"Ranks from {low} to {high}, mean {last['mean']:.1f}."


def loss_figure(train: pd.DataFrame, held_out: pd.DataFrame, colours: Palette) -> go.Figure:
    """Draw the smoothed training loss and the held-out loss; frames hold step and value."""
    return add_losses(theme.figure(colours, HEIGHT), train, held_out, colours, "Training, smoothed")


def ranks_figure(span: pd.DataFrame, colours: Palette) -> go.Figure:
    """Draw the mean rank in a band from the lowest to the highest; columns step, lowest, mean, highest."""
    drawn = theme.figure(colours, HEIGHT)
    drawn.add_scatter(
        x=[*span["step"], *span["step"][::-1]],
        y=[*span["highest"], *span["lowest"][::-1]],
        fill="toself",
        mode="lines",
        line={"width": 0, "shape": "hv"},
        fillcolor=theme.faded(colours.accent, 0.16),
        name="Lowest to highest",
        hoverinfo="skip",
    )
    drawn.add_scatter(
        x=span["step"],
        y=span["mean"],
        mode="lines",
        name="Mean",
        line={"color": colours.accent, "width": 2},
        customdata=span[["lowest", "highest"]].to_numpy(),
        hovertemplate="step %{x}<br>mean rank %{y:.2f}<br>from %{customdata[0]:.0f} to %{customdata[1]:.0f}"
        "<extra></extra>",
    )
    drawn.update_layout(showlegend=True)
    drawn.update_yaxes(rangemode="tozero", tickformat=",d", nticks=5)
    return titled(drawn, "Rank of a module")
