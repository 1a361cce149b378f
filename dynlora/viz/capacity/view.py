"""What the Capacity page looks at, and the controls of the view."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import streamlit as st

from dynlora.analysis import capacity_frames
from dynlora.analysis.run_reading import RunReading, read_run
from dynlora.analysis.run_summary import last_planned_step
from dynlora.errors import DynloraError
from dynlora.store import queries
from dynlora.store.summary import RunSummary
from dynlora.text import one_line, sentence_case
from dynlora.viz.ui import cached_queries
from dynlora.viz.ui.run_picker import has_model
from dynlora.viz.ui.url_state import addressed_range, choose, chosen_step, from_address, segmented, step_range


def has_moved(folder: Path) -> int:
    """Say whether rank moved between the modules of a run: 0 where none did, or the run cannot be read.

    It is 2 where the adapter is there, so that its modules can be ablated.
    """
    try:
        ranks = list(cached_queries.ask(queries.run_summary, folder)["ranks"].values())
        start = cached_queries.at_step(folder, "rank", None)
    except DynloraError:
        return 0
    if start is None or len(set(ranks)) == 1 or np.array_equal(start, ranks):
        return 0
    return 1 + has_model(folder)


def capacity_view(folder: Path, summary: RunSummary) -> RunReading | None:
    """Return a run with all its steps chosen; None before the first rank is recorded.

    Raises:
        DynloraError: when the run cannot be read.
    """
    run = read_run(folder, cached_queries.CACHED, summary)
    return run if run.has_ranks else None


def capacity_controls(view: RunReading) -> RunReading:
    """Draw the controls and return the view as they set it; their values stand in the address."""
    with st.container(horizontal=True, vertical_alignment="bottom", key="capacity-controls"):
        segmented("signal", "Signal", list(view.signals), "rank", _signal_name(view))
        segmented(
            "rows", "Order of the modules", list(capacity_frames.ORDERS), "kind", capacity_frames.ORDERS.__getitem__
        )
    left, right = st.columns([3, 2], vertical_alignment="bottom")
    with left:
        step_range(view.summary["step"], last_planned_step(view.summary))
    with right:
        short = view.short
        choose("module", "Module", ["", *short], "", lambda name: short.get(name, "None"))
    return as_addressed(view)


def _signal_name(view: RunReading) -> Callable[[str], str]:
    """Return what names the signals in the list of signals."""
    return lambda name: sentence_case(one_line(view.signals[name].word, 40))


def as_addressed(view: RunReading) -> RunReading:
    """Return the view that the address asks for."""
    first, last = addressed_range(view.summary["step"])
    return replace(
        view,
        first=first,
        last=last,
        step=chosen_step(first, last),
        signal=from_address("signal", list(view.signals), "rank"),
        order=from_address("rows", list(capacity_frames.ORDERS), "kind"),
        module=from_address("module", list(view.short), None),
    )
