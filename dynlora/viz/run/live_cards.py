"""The Run page while a run trains: its head, what it learns, what it costs, the machine."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Any
from urllib.parse import quote

import pandas as pd
import streamlit as st

from dynlora.analysis import run_summary
from dynlora.analysis.run_reading import read_run
from dynlora.kinds.registry import registry
from dynlora.store import queries
from dynlora.store.summary import RunSummary
from dynlora.text import duration, markdown_text
from dynlora.viz.kit.panel import RunView
from dynlora.viz.run import result_figures
from dynlora.viz.run.button import export_buttons
from dynlora.viz.ui import cached_queries
from dynlora.viz.ui.cards import badge, card, chart, colours, note, status_line, titled
from dynlora.viz.ui.panel_cards import panel_cards
from dynlora.viz.ui.run_actions import run_buttons
from dynlora.viz.ui.run_picker import Chosen, is_known, link, links


def minutes(system: pd.DataFrame) -> pd.DataFrame:
    """Return readings of the machine as columns name, minutes (since the first), value."""
    start = system["time"].min() if len(system) else 0.0
    return pd.DataFrame({"name": system["name"], "minutes": (system["time"] - start) / 60, "value": system["value"]})


def machine_caption(readings: pd.DataFrame, names: Mapping[str, str], unit: str) -> str:
    """Say the last and the highest value of each reading."""
    parts = []
    for name, called in names.items():
        values = readings.loc[readings["name"] == name, "value"].dropna()
        if len(values):
            parts.append(f"{called} {values.iloc[-1]:,.0f} {unit} now, maximum {values.max():,.0f} {unit}")
    length = readings["minutes"].max() if len(readings) else 0.0
    if not parts:
        return "Not recorded in this run."
    words = "; ".join(parts)
    return f"{words[0].upper()}{words[1:]}, over {duration(60 * length)}."


MEMORY = {"rss_mib": "Process", "gpu_memory_mib": "GPU"}
"""Readings of memory, in MiB, and what they are called."""

PROCESSOR = {"cpu_percent": "Process"}
"""Readings of the processor, in percent of one core."""


def run_head(
    run: Chosen,
    summary: Mapping[str, Any],
    times: pd.DataFrame,
    events: pd.DataFrame,
    report_button: Callable[[Sequence[Chosen]], None],
) -> None:
    """Draw name, status, progress, the buttons, and the links to other views and to runs like this one."""
    titled(summary["name"], run_summary.about(summary))
    _origin(summary)
    with st.container(horizontal=True, vertical_alignment="center", key="head"):
        badge(summary["status"])
        run_buttons(run, summary["status"])
        links(run.id, here="run")
        with st.popover("Run again", icon=":material/content_copy:", type="tertiary", key="again"):
            link("pages/launch.py", "Duplicate with changes", **{"from": run.id})
            link("pages/launch.py", "Uniform baseline: same budget, equal ranks", **{"from": run.id, "twin": "uniform"})
            link("pages/launch.py", "Random control: same moves, at random", **{"from": run.id, "twin": "random"})
        export_buttons(run)
        report_button([run])
    phase = run_summary.phase(summary, lambda: queries.logs_frame(run.folder, 20))
    st.progress(run_summary.progress_share(summary), text=markdown_text(run_summary.format_progress(summary, phase)))
    status_line(summary)


def _origin(summary: Mapping[str, Any]) -> None:
    """Draw which adapter a run starts from, as a link to the run that trained it."""
    origin = summary.get("origin")
    if not origin:
        return
    words = escape(run_summary.origin_words(origin, origin["name"]))
    if origin["run"] and is_known(origin["run"]):
        words = f'<a href="run?run={quote(origin["run"], safe="")}" target="_self">{words}</a>'
    st.html(f'<p class="dl-origin">{words}</p>')


def run_training(run: Chosen, summary: RunSummary, scalars: pd.DataFrame) -> None:
    """Draw what the run learns and what that costs.

    Raises:
        DynloraError: when the run cannot be read.
    """
    if scalars.empty:
        note("No data has been recorded yet. Charts appear after the first steps.")
        return
    reading = read_run(run.folder, cached_queries.CACHED, summary)
    panels = (panel for panel in registry()["train"].panels if panel.part in ("Training", "Cost"))
    panel_cards(panels, RunView(run.folder, reading, reading.store))


def run_machine(run: Chosen, summary: Mapping[str, Any]) -> None:
    """Draw the machine in use, what it is, and the log.

    Raises:
        DynloraError: when the run cannot be read.
    """
    readings = minutes(cached_queries.ask(queries.system_frame, run.folder))
    left, right = st.columns(2)
    for place, title, names, unit, key in (
        (left, "Memory use", MEMORY, "MiB", "memory"),
        (right, "CPU use", PROCESSOR, "% of one core", "processor"),
    ):
        visible = readings[readings["name"].isin(names)]
        with place, card(title, key):
            if visible.empty:
                note("Not recorded in this run. Memory and CPU use are recorded about every five seconds of training.")
            else:
                label = f"Memory ({unit})" if names is MEMORY else f"CPU use ({unit})"
                figure = result_figures.readings(visible, names, label, colours())
                chart(figure, machine_caption(visible, names, unit.split(" of")[0]), visible, key)
    with card("Log", "log"):
        lines = run_summary.log_text(cached_queries.ask(queries.logs_frame, run.folder, 200))
        st.code(lines or "The log is empty.", language=None, wrap_lines=True)
