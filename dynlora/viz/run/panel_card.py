"""One run beside the list of runs: how its loss and its ranks went, its result, and what can be done with it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd
import streamlit as st

from dynlora.analysis import run_summary
from dynlora.kinds.registry import registry
from dynlora.store import queries
from dynlora.text import metric_words, one_line, score, sentence_case
from dynlora.viz.run import panel_figures, panel_text
from dynlora.viz.run.button import adapter_button
from dynlora.viz.ui import cached_queries
from dynlora.viz.ui.cards import badge, card, chart, colours, figures, note, status_line
from dynlora.viz.ui.run_actions import delete_button, move_buttons, run_buttons
from dynlora.viz.ui.run_picker import Chosen, link, links, page_of

POINTS = 200
"""Most points of a series: the charts are narrow."""


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
    shown = {word: score(value), "Best": score(best), "Parameters in use": "–" if used is None else f"{used:,}"}
    figures(shown, "figures-panel")


def _loss(run: Chosen) -> None:
    """Draw the training loss and the held-out loss."""
    scalars = cached_queries.ask(queries.scalars_frame, run.folder, "loss", None, POINTS)
    train, held_out = (run_summary.series(scalars, "loss", split) for split in ("train", "validation"))
    if train.empty:
        note("No loss has been recorded yet.")
        return
    chart(panel_figures.loss(train, held_out, colours()), panel_text.loss(train, held_out), train, "panel-loss")


def _ranks(run: Chosen) -> None:
    """Draw the lowest, mean and highest rank of the modules."""
    try:
        ranks = cached_queries.ask(queries.heatmap, run.folder, "rank", POINTS, None, None).frame
    except KeyError:
        return
    span = spans_of(ranks)
    if len(span):
        chart(panel_figures.ranks(span, colours()), panel_text.ranks(span), span, "panel-ranks")


def spans_of(ranks: pd.DataFrame) -> pd.DataFrame:
    """Return the lowest, mean and highest rank at each step: columns step, lowest, mean, highest.

    Args:
        ranks: one row per module, one column per step.
    """
    found = pd.DataFrame({"lowest": ranks.min(), "mean": ranks.mean(), "highest": ranks.max()})
    return found.dropna().rename_axis("step").reset_index()
