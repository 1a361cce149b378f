"""What the launch form starts from: a preset or another run, chosen in the address."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import streamlit as st

from dynlora.config import parse_config
from dynlora.jobs import launch
from dynlora.store import queries
from dynlora.viz.launch import form_model
from dynlora.viz.ui.cards import note
from dynlora.viz.ui.live import announce, guarded
from dynlora.viz.ui.run_actions import start_once
from dynlora.viz.ui.run_picker import Chosen, find_run, is_read_only, link, list_all, run_labels
from dynlora.viz.ui.url_state import from_address, put, to_address


def pick_start(strategies: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Draw the choice of preset, or of another run and its baseline; return the starting values by dotted key.

    Args:
        strategies: what the catalogue says of each strategy, by name.
    """
    left, right = st.columns([2, 3], vertical_alignment="bottom")
    with left:
        run_id = _pick_run()
    with right:
        if not run_id:
            name = _segmented("preset", "Preset", list(form_model.PRESETS), str)
            note(form_model.PRESET_WORDS[name])
            return dict(form_model.PRESETS[name])
        with guarded():
            config = queries.run_summary(find_run(run_id).folder).config
            parse_config(config)
        twins = form_model.twins(config, strategies)
        twin = st.query_params.get("twin")
        if twin in form_model.TWINS and twin not in twins:
            note(f"This run has no {form_model.TWINS[twin].lower()}: the settings would be the same.")
        name = _segmented("twin", "Use of this run", list(twins), form_model.TWINS.__getitem__)
        note(form_model.TWIN_WORDS[name])
        return twins[name]


def _pick_run() -> str:
    """Draw the picker of a run to start from; empty for none."""
    runs = list_all()
    words = {"": "A preset", **run_labels(runs[runs["status"] != "corrupt"])}
    run_id = st.query_params.get("from", "")
    if run_id not in words:
        with guarded():
            words[find_run(run_id).id] = run_id
    put("address-from", run_id)
    return st.selectbox(
        "Start from",
        list(words),
        key="address-from",
        format_func=words.__getitem__,
        on_change=lambda: _start_over("from", st.session_state["address-from"]),
        help="A preset, or the settings of another run. Its baseline and control use the same budget.",
    )


def _segmented(name: str, label: str, options: list[str], words: Any) -> str:
    current = from_address(name, options, options[0])
    put(f"address-{name}", current)
    chosen = st.segmented_control(
        label,
        options,
        key=f"address-{name}",
        format_func=words,
        label_visibility="collapsed",
        on_change=lambda: _start_over(name, st.session_state[f"address-{name}"]),
    )
    return current if chosen is None else chosen


def _start_over(name: str, value: str | None) -> None:
    """Write the choice to the address and drop what was chosen on top of the one before."""
    to_address(strategy=None, data=None, upload=None, methods=None, **{name: value or None})
    if name == "from":
        to_address(twin=None, preset=None)


def baseline_button(run: Chosen) -> None:
    """Draw the button that trains the baseline of a run, what leads to its settings, and what it is.

    Where the page may only look it says so in their place.

    Args:
        run: the run that has nothing to be compared with.
    """
    if is_read_only():
        twin_button(run)
        return
    with st.container(horizontal=True, vertical_alignment="center", key="baseline"):
        twin = twin_button(run, is_main=True)
        link("pages/launch.py", "Change its settings first", **{"from": run.id, "twin": twin})
    note(f"{form_model.TWIN_WORDS[twin]} This page then follows both runs.")


def twin_button(run: Chosen, *, is_main: bool = False) -> str:
    """Draw the button that trains the same with plain LoRA, or with the default method where the run is plain LoRA.

    Both runs are then compared. Where the page may only look a note is in its place.

    Args:
        run: the run.
        is_main: whether it is what the page is for.

    Returns:
        Which of `presets.TWINS` it trains.
    """
    with guarded():
        config = queries.run_summary(run.folder).config
    is_plain = (config.get("strategy") or {}).get("name") == form_model.UNIFORM
    twin, words = (
        ("default", f"Train it with {form_model.DEFAULT}") if is_plain else ("uniform", "Train its plain LoRA baseline")
    )
    if is_read_only():
        note("A run with the same settings would show whether it helps. This dashboard is read-only.")
    elif st.button(words, icon=":material/add:", type="primary" if is_main else "secondary", key="start-twin"):
        _start(run, config, twin)
    return twin


def _start(run: Chosen, config: Mapping[str, Any], name: str) -> None:
    """Queue the other run and compare both; a second press before the page is refreshed queues nothing more."""
    with guarded():
        strategies = {row["name"]: row for row in launch.catalog()["strategies"]}
        settings = form_model.nested(form_model.twins(config, strategies)[name])
    twin = start_once(settings, "twin")
    if twin is None:
        return
    announce(f"Queued: {settings.get('name') or twin.id}")
    st.switch_page("pages/compare.py", query_params={"runs": f"{run.id},{twin.id}"})
