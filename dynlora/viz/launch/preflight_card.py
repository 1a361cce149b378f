"""The check before a run starts: one button, and the result of `dynlora preflight`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import streamlit as st

from dynlora.errors import DynloraError
from dynlora.jobs import cli_client
from dynlora.viz.kit import config_fields, strong_language
from dynlora.viz.kit.text import markdown_text
from dynlora.viz.launch import cost_figures, cost_model, token_card
from dynlora.viz.ui import warm_process
from dynlora.viz.ui.cards import asked_for_texts, card, chart, colours, figures, note, under, unseen_chart
from dynlora.viz.ui.run_picker import is_read_only, runs_dir

KEPT = 4
"""Checks that a session remembers, so that going back to earlier settings shows theirs again."""


def check_button(config: Mapping[str, Any], missing: str = "", training: int = 0) -> None:
    """Draw the button that checks a configuration; the answer is remembered for `show_check`.

    Args:
        config: the configuration.
        missing: what has to be given first, in a sentence; the button waits for it.
        training: runs that train now, and so slow the check's own steps.
    """
    if is_read_only():
        return
    warm_process.keep(None if missing else config)
    pressed = st.button(
        "Check", icon=":material/fact_check:", key="check", disabled=bool(missing),
        help=missing or "Loads model and data, takes two steps, and estimates the cost of the run. Saves nothing.",
    )  # fmt: skip
    if pressed:
        with st.spinner("Loading model and data and taking two steps; a few seconds"):
            unseen_chart()
            try:
                answer: Any = cli_client.preflight(dict(config), runs_dir())
            except DynloraError as error:
                answer = str(error)
        known = st.session_state.setdefault("checks", {})
        known[_key(config)] = (answer, training)
        while len(known) > KEPT:
            known.pop(next(iter(known)))


def _key(config: Mapping[str, Any]) -> str:
    return config_fields.launch_key("check", {**config, "name": None})


def checked_seconds(config: Mapping[str, Any]) -> float | None:
    """Return the seconds that a run takes by the check of these settings; None without one."""
    answer, _ = st.session_state.get("checks", {}).get(_key(config), (None, 0))
    return None if answer is None or isinstance(answer, str) else 60 * answer["time"]["total_minutes"]


def show_check(config: Mapping[str, Any]) -> None:
    """Draw what the check of these settings said; say so when the form has changed since the last one."""
    known = st.session_state.get("checks", {})
    answer, training = known.get(_key(config), (None, 0))
    if answer is None:
        if known:
            note("The form has changed since the last check. Check again for the present cost.")
    elif isinstance(answer, str):
        st.error(markdown_text(answer, 2000))
    else:
        _draw(answer, training)


def _draw(found: Mapping[str, Any], training: int) -> None:
    """Draw a check's figures, warnings, parameters, schedule and rows."""
    with card("Cost estimate", "costs"):
        figures(cost_model.figures(found), "figures-costs")
        note(cost_model.cost_caption(found, training))
        if generation := cost_model.generation_caption(found):
            note(generation)
        for sentence in found["warnings"]:
            st.warning(markdown_text(sentence, 600), icon=":material/warning:")
    left, right = st.columns(2)
    kinds, timeline = cost_model.kinds_frame(found), cost_model.timeline(found)
    with left, card("Trainable parameters by module kind", "kinds"):
        chart(cost_figures.kinds_bars(kinds, colours()), cost_model.kinds_caption(found), kinds, "kinds")
    with right, card("Schedule", "schedule"):
        figure = cost_figures.schedule_lanes(timeline, colours())
        chart(figure, cost_model.schedule_caption(found), timeline, "schedule")
    with card("Tokenized examples", "preview"):
        _preview(found)


def _preview(found: Mapping[str, Any]) -> None:
    """Draw a few rows with the tokens that the model sees of each; those of a language model with their loss mask."""
    if found.get("writes"):
        rows = [{**row, "place": f"training example {row['row']:,}", "tokens": len(row["tokens"])}
                for row in found["preview"]]  # fmt: skip
        token_card.draw_rows(rows, "preview")
        note(cost_model.data_caption(found))
        return
    preview = cost_model.preview_frame(found)
    is_whole = asked_for_texts(strong_language.count(preview), "preview")
    preview = preview if is_whole else cost_model.presentable(preview)
    st.dataframe(
        preview, hide_index=True, width="stretch",
        column_config={
            "row": st.column_config.NumberColumn(format="localized", width="small"),
            "tokens": st.column_config.NumberColumn(width="small"),
            "text": st.column_config.TextColumn(width="medium"),
            "model input": st.column_config.TextColumn(width="large"),
        },
    )  # fmt: skip
    under(cost_model.data_caption(found), preview, "preview")
