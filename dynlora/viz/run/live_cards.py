"""The Run page while a run trains: its head, what it learns, what it costs, the machine."""

# pyright: reportArgumentType=false
# (pandas comes without types: a column is taken for a frame and a frame for a column)
from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd
import streamlit as st

from dynlora.store import queries
from dynlora.viz import sentences
from dynlora.viz.capacity import model as capacity
from dynlora.viz.kit import run_summary as listing
from dynlora.viz.kit.text import number, one_line
from dynlora.viz.report.button import report_button
from dynlora.viz.run import figures, progress
from dynlora.viz.run import result_figures as figures_results
from dynlora.viz.run import result_text as sentences_run
from dynlora.viz.ui import cached_queries as answers
from dynlora.viz.ui.cards import badge, card, chart, colours, note, status_line, titled
from dynlora.viz.ui.run_actions import run_buttons
from dynlora.viz.ui.run_picker import Chosen, link, links

MEMORY = {"rss_mib": "process", "gpu_memory_mib": "GPU"}
"""Readings of memory, in MiB, and what they are called."""

PROCESSOR = {"cpu_percent": "process"}
"""Readings of the processor, in percent of one core."""


def run_head(run: Chosen, summary: Mapping[str, Any], times: pd.DataFrame, events: pd.DataFrame) -> None:
    """Draw name, status, progress, the buttons, and the links to other views and to runs like this one."""
    resumed_at = listing.resumed_at(events)
    remaining = progress.remaining_s(summary, times, events, resumed_at)
    titled(summary["name"], listing.about(summary))
    with st.container(horizontal=True, vertical_alignment="center", key="head"):
        badge(summary["status"])
        run_buttons(run, summary["status"])
        links(run.id, here="run")
        with st.popover("Run again", icon=":material/content_copy:", type="tertiary", key="again"):
            link("pages/launch.py", "Duplicate with changes", **{"from": run.id})
            link("pages/launch.py", "Uniform twin: same budget, spread evenly", **{"from": run.id, "twin": "uniform"})
            link("pages/launch.py", "Random twin: same moves, by chance", **{"from": run.id, "twin": "random"})
        report_button([run])
    st.progress(listing.progress_share(summary), text=progress.words(summary, remaining))
    status_line(summary)


def run_training(run: Chosen, summary: Mapping[str, Any], scalars: pd.DataFrame, times: pd.DataFrame) -> None:
    """Draw what the run learns and what that costs.

    Raises:
        DynloraError: when the run cannot be read.
    """
    if scalars.empty:
        note("Nothing has been recorded yet: charts appear with the first steps.")
        return
    mode, rate = colours(), listing.series(scalars, "lr", "train")
    train, held_out = listing.series(scalars, "loss", "train"), listing.series(scalars, "loss", "validation")
    metrics, name = listing.held_out(scalars), summary.get("metric") or listing.main_metric(summary)[0]
    left, right = st.columns(2)
    with left, card("Does it learn?", "loss"):
        chart(figures.loss_lines(train, held_out, mode), sentences.loss(train, held_out), train, "loss")
    with right, card("How good is it on rows it has not seen?", "metric"):
        words = sentences.metric(listing.series(scalars, name, "validation"), name)
        chart(figures.metric_lines(metrics, mode), words, metrics, "metric")
    left, right = st.columns(2)
    with left, card("Does it stay within the budget?", "budget"):
        limit, line = summary["params"].get("budget"), answers.budget(run.folder, summary)
        used = capacity.parameters(line)
        figure = figures.line(used, "adapter parameters in use", mode, limit=limit, zero=False, tick=",")
        chart(figure, sentences.budget(line, limit), line, "budget")
    with right, card("Which kinds of modules hold the ranks?", "kinds"):
        _kinds(run)
    left, right = st.columns(2)
    with left, card("How fast is it told to learn?", "lr"):
        chart(figures.line(rate, "learning rate, per step", mode), sentences.learning_rate(rate), rate, "lr")
    with right, card("What does a step cost, and the strategy's part of it?", "time"):
        words = sentences.step_time(times, listing.series(scalars, "optimizer_bytes", "train"))
        chart(figures.step_time(times, mode), words, times, "time")
    _own_numbers(scalars)


def _own_numbers(scalars: pd.DataFrame) -> None:
    """Draw the numbers that only this method counts, two in a row."""
    found = listing.own_numbers(scalars)
    for start in range(0, len(found), 2):
        for place, name in zip(st.columns(2), found[start : start + 2], strict=False):
            series = listing.series(scalars, name, "train")
            word = one_line(name.replace("_", " ").replace("/", ": "), 60)
            with place, card(f"The method's own: {word}", f"own-{start}-{name}"):
                words = f"{word}, from {number(series['value'].iloc[0])} to {number(series['value'].iloc[-1])}."
                chart(figures.line(series, word, colours(), zero=False), words, series, f"own-{name}")


def _kinds(run: Chosen) -> None:
    try:
        ranks = answers.ask(queries.heatmap, run.folder, "rank", answers.COLUMNS, None, None).frame
    except KeyError:
        note("No ranks have been recorded yet.")
        return
    totals = progress.components_by_kind(ranks, answers.modules(run.folder))
    chart(figures_results.ranks_by_kind(totals, colours()), sentences_run.by_kind(totals), totals, "kinds")


def run_machine(run: Chosen, summary: Mapping[str, Any]) -> None:
    """Draw the machine in use, what it is, and the log.

    Raises:
        DynloraError: when the run cannot be read.
    """
    readings = progress.minutes(answers.ask(queries.system_frame, run.folder))
    left, right = st.columns(2)
    for place, title, names, unit, key in (
        (left, "How much memory does it hold?", MEMORY, "MiB", "memory"),
        (right, "How busy is the processor?", PROCESSOR, "% of one core", "processor"),
    ):
        shown = readings[readings["name"].isin(names)]
        with place, card(title, key):
            if shown.empty:
                note("Not recorded in this run: the machine is read about every five seconds of training.")
            else:
                label = f"memory, {unit}" if names is MEMORY else f"use, {unit}"
                figure = figures_results.readings(shown, names, label, colours())
                chart(figure, progress.machine_words(shown, names, unit.split(" of")[0]), shown, key)
    with card("What does its log say?", "log"):
        lines = listing.log_text(answers.ask(queries.logs_frame, run.folder, 200))
        st.code(lines or "The log is empty.", language=None, wrap_lines=True)
