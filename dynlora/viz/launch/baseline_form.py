"""One button that queues the plain LoRA baseline of a run: the same data, steps, rank and seed."""

from __future__ import annotations

import streamlit as st

from dynlora.jobs import launch
from dynlora.store import queries
from dynlora.viz.launch import form_model, presets
from dynlora.viz.ui.cards import note
from dynlora.viz.ui.guard import announce, guarded
from dynlora.viz.ui.run_actions import start_once
from dynlora.viz.ui.run_picker import Chosen, is_read_only, link


def baseline_button(run: Chosen) -> None:
    """Draw the button; where the page may only look, or the run is plain LoRA itself, the link that comes next.

    Args:
        run: the run that has nothing to be compared with.
    """
    with guarded():
        config = queries.run_summary(run.folder)["config"]
        strategies = {row["name"]: row for row in launch.catalog()["strategies"]}
        twin = presets.twins(config, strategies).get("uniform")
    if twin is None:
        link("pages/launch.py", "Train another configuration like this", **{"from": run.id})
        return
    if is_read_only():
        note("A plain LoRA run with the same settings would be its baseline. This dashboard is read-only.")
        return
    with st.container(horizontal=True, vertical_alignment="center", key="baseline"):
        if st.button("Train its plain LoRA baseline", icon=":material/add:", type="primary", key="start-twin"):
            _start(run, form_model.nested(twin))
        link("pages/launch.py", "Change its settings first", **{"from": run.id, "twin": "uniform"})
    note(f"{presets.TWIN_WORDS['uniform']} This page then follows both runs.")


def _start(run: Chosen, config: dict[str, object]) -> None:
    """Queue the baseline and compare both; a second press before the page is refreshed queues nothing more."""
    twin = start_once(config, "twin")
    if twin is None:
        return
    st.query_params["runs"] = f"{run.id},{twin.id}"
    announce("Queued: the plain LoRA baseline")
    st.rerun()
