"""The check before runs start: one button, and the result of `dynlora preflight` for each kind of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import streamlit as st

from dynlora.analysis import config_fields
from dynlora.errors import DynloraError
from dynlora.jobs import cli_client
from dynlora.text import markdown_text
from dynlora.viz.launch import cost_model, token_card
from dynlora.viz.ui import model_client
from dynlora.viz.ui.cards import card, chart, colours, figures, note, under, unseen_chart
from dynlora.viz.ui.run_picker import is_read_only, runs_dir

KEPT = 40
"""Checks that a session remembers, so that going back to earlier settings shows theirs again."""


@dataclass(frozen=True)
class Plan:
    """Runs that cost the same: one is checked for all.

    Attributes:
        label: the method, where an experiment has several; empty for runs of one.
        config: of the run that is checked.
        runs: how many runs there are like it.
    """

    label: str
    config: Mapping[str, Any]
    runs: int


def check_button(plans: Sequence[Plan], missing: str = "", training: int = 0) -> None:
    """Draw the button that checks configurations; the answers are remembered for `show_check`.

    Args:
        plans: what is checked, one run of each.
        missing: what has to be given first, in a sentence; the button waits for it.
        training: runs that train now, and so slow the check's own steps.
    """
    if is_read_only():
        return
    model_client.keep(None if missing else plans[0].config)
    pressed = st.button(
        "Check",
        icon=":material/fact_check:",
        key="check",
        disabled=bool(missing),
        help=missing or "Loads model and data, takes two steps, and estimates the cost of the run. Saves nothing.",
    )
    if not pressed:
        return
    known = st.session_state.setdefault("checks", {})
    unseen_chart()
    for number, plan in enumerate(plans, 1):
        method = f"Checking {plan.label}, {number} of {len(plans)}: " if len(plans) > 1 else ""
        with st.spinner(f"{method}Loading model and data and taking two steps"):
            try:
                answer: Any = cli_client.preflight(dict(plan.config), runs_dir())
            except DynloraError as error:
                answer = str(error)
        known[_key(plan.config)] = (answer, training)
    while len(known) > KEPT:
        known.pop(next(iter(known)))


def _key(config: Mapping[str, Any]) -> str:
    return config_fields.launch_key("check", {**config, "name": None})


def checked_seconds(plans: Sequence[Plan]) -> float | None:
    """Return the seconds that all runs take one after another, by their checks; None where one was not checked."""
    known = st.session_state.get("checks", {})
    answers = [known.get(_key(plan.config), (None, 0))[0] for plan in plans]
    if any(answer is None or isinstance(answer, str) for answer in answers):
        return None
    return cost_model.total_seconds(list(zip(answers, (plan.runs for plan in plans), strict=True)))


def show_check(plans: Sequence[Plan]) -> None:
    """Draw what the check of these settings said; say so when the form has changed since the last one."""
    known = st.session_state.get("checks", {})
    answers = [known.get(_key(plan.config), (None, 0)) for plan in plans]
    if any(answer is None for answer, _ in answers):
        if known:
            note("The form has changed since the last check. Check again for the present cost.")
        return
    refused = [(plan, answer) for plan, (answer, _) in zip(plans, answers, strict=True) if isinstance(answer, str)]
    for plan, answer in refused:
        st.error(markdown_text(f"{plan.label}: {answer}" if plan.label else answer, 2000))
    if not refused:
        _draw(plans, [answer for answer, _ in answers], answers[0][1])


def _draw(plans: Sequence[Plan], answers: Sequence[Mapping[str, Any]], training: int) -> None:
    """Draw the checks' figures and warnings, and of one of them parameters, schedule and rows."""
    costs = list(zip(answers, (plan.runs for plan in plans), strict=True))
    labels = [plan.label for plan in plans]
    with card("Cost estimate", "costs"):
        figures(cost_model.figures(costs), "figures-costs")
        if len(plans) > 1:
            methods = cost_model.methods_frame(labels, costs)
            st.dataframe(methods, hide_index=True, width="stretch")
        note(cost_model.cost_caption(answers[0], training))
        if generation := cost_model.generation_caption(answers[0]):
            note(generation)
        for sentence in dict.fromkeys(sentence for answer in answers for sentence in answer["warnings"]):
            st.warning(markdown_text(sentence, 600), icon=":material/warning:")
    at = 0
    if len(plans) > 1:
        chosen = st.segmented_control("Method", labels, default=labels[0], key="checked-method")
        at = labels.index(chosen) if chosen in labels else 0
    _draw_one(answers[at])


def _draw_one(estimate: Mapping[str, Any]) -> None:
    """Draw one check's parameters, schedule and rows."""
    left, right = st.columns(2)
    kinds, timeline = cost_model.kinds_frame(estimate), cost_model.timeline(estimate)
    with left, card("Trainable parameters by module kind", "kinds"):
        chart(cost_model.kinds_bars(kinds, colours()), cost_model.kinds_caption(estimate), kinds, "kinds")
    with right, card("Schedule", "schedule"):
        figure = cost_model.schedule_lanes(timeline, colours())
        chart(figure, cost_model.schedule_caption(estimate), timeline, "schedule")
    with card("Tokenized examples", "preview"):
        _preview(estimate)


def _preview(estimate: Mapping[str, Any]) -> None:
    """Draw a few rows with the tokens that the model sees of each; those of a language model with their loss mask."""
    if estimate.get("writes"):
        rows = [
            {**row, "place": f"training example {row['row']:,}", "tokens": len(row["tokens"])}
            for row in estimate["preview"]
        ]
        token_card.draw_rows(rows, "preview")
        note(cost_model.data_caption(estimate))
        return
    preview = cost_model.preview_frame(estimate)
    st.dataframe(
        preview,
        hide_index=True,
        width="stretch",
        column_config={
            "row": st.column_config.NumberColumn(format="localized", width="small"),
            "tokens": st.column_config.NumberColumn(width="small"),
            "text": st.column_config.TextColumn(width="medium"),
            "model input": st.column_config.TextColumn(width="large"),
        },
    )
    under(cost_model.data_caption(estimate), preview, "preview")
