"""How does this run go?"""

from __future__ import annotations

from typing import Any

import streamlit as st

from dynlora.store import queries
from dynlora.viz import capacity, figures, listing, sentences, widgets
from dynlora.viz.widgets import ask

widgets.enter()
run = widgets.pick_run()
with widgets.guarded():
    BEFORE = queries.run_summary(run.folder)
IS_ACTIVE = BEFORE["status"] in listing.ACTIVE


@st.fragment(run_every=2 if IS_ACTIVE else None)
def show_run() -> None:
    """Draw everything that changes while the run trains."""
    with widgets.guarded():
        summary = queries.run_summary(run.folder)
        if IS_ACTIVE and summary["status"] not in listing.ACTIVE:
            st.rerun()
        scalars = ask(queries.scalars_frame, run.folder, None, None, 2000)
        events = ask(queries.events_frame, run.folder, ("evaluate", "resume", "warning"))
    show_header(summary, scalars, events)
    if scalars.empty:
        widgets.note("Nothing has been recorded yet: charts appear with the first steps.")
    else:
        show_progress(summary, scalars)
        show_costs(summary, scalars)
    show_evaluation(events)
    with st.expander("Log", icon=":material/notes:"), widgets.guarded():
        st.code(listing.log_text(ask(queries.logs_frame, run.folder, 200)) or "The log is empty.", language=None)


def show_header(summary: dict[str, Any], scalars: Any, events: Any) -> None:
    """Draw name, status, progress and the buttons."""
    times = listing.step_times(scalars)
    widgets.titled(summary["name"], listing.about(summary))
    remaining = listing.remaining_s(summary, times, listing.resumed_at(events))
    with st.container(horizontal=True, vertical_alignment="center", key="head"):
        widgets.badge(summary["status"])
        widgets.run_buttons(run, summary["status"])
        widgets.links(run.id, here="run")
    st.progress(listing.progress_share(summary), text=listing.progress_words(summary, remaining))
    widgets.status_line(summary)


def show_progress(summary: dict[str, Any], scalars: Any) -> None:
    """Draw what the run learns."""
    colours, metrics = widgets.colours(), listing.held_out(scalars)
    name = listing.main_metric(summary)[0]
    train, held_out = listing.series(scalars, "loss", "train"), listing.series(scalars, "loss", "validation")
    left, right = st.columns(2)
    with left, widgets.card("Does it learn?", "loss"):
        widgets.chart(figures.loss_lines(train, held_out, colours), sentences.loss(train, held_out), train, "loss")
    with right, widgets.card("How good is it on rows it has not seen?", "metric"):
        best = sentences.metric(listing.series(scalars, name, "validation"), name)
        widgets.chart(figures.metric_lines(metrics, colours), best, metrics, "metric")


def show_costs(summary: dict[str, Any], scalars: Any) -> None:
    """Draw learning rate, budget and time."""
    colours, times, rate = widgets.colours(), listing.step_times(scalars), listing.series(scalars, "lr", "train")
    first, second, third = st.columns(3)
    with first, widgets.card("How fast is it told to learn?", "lr"):
        figure = figures.line(rate, "learning rate, per step", colours)
        widgets.chart(figure, sentences.learning_rate(rate), rate, "lr")
    with second, widgets.card("Does it stay within the budget?", "budget"):
        limit = summary["params"].get("budget")
        line = widgets.budget(run.folder, summary)
        figure = figures.line(
            capacity.parameters(line), "adapter parameters in use", colours, limit=limit, zero=False, tick=","
        )
        widgets.chart(figure, sentences.budget(line, limit), line, "budget")
    with third, widgets.card("What does a step cost?", "time"):
        widgets.chart(figures.step_time(times, colours), sentences.step_time(times), times, "time")


def show_evaluation(events: Any) -> None:
    """Draw what the last evaluation found."""
    found = listing.evaluation(events)
    if found is None:
        return
    step, payload = found
    table, worst = listing.confusion(payload), listing.worst(payload)
    left, right = st.columns([2, 3])
    if table is not None:
        with left, widgets.card("What is taken for what?", "confusion"):
            figure = figures.confusion(*table, widgets.colours())
            widgets.chart(figure, sentences.confusion(*table, step), listing.confusion_table(*table), "confusion")
    with right, widgets.card(f"Where is it most wrong? (step {step})", "worst"):
        st.dataframe(worst, hide_index=True, width="stretch", height=330)


show_run()
