"""The shift lab of the Inputs page: the trained adapter on other text, and runs that never saw a group."""

# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false
# (pandas comes without types)
from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import streamlit as st

from dynlora import launch
from dynlora.errors import DynloraError
from dynlora.store import queries
from dynlora.viz import figures_playground, shifts
from dynlora.viz.labels import listed, one_line
from dynlora.viz.launchform import launch_key
from dynlora.viz.widgets import answers
from dynlora.viz.widgets.address import choose, segmented
from dynlora.viz.widgets.cards import card, chart, colours, note, rows, safe, under
from dynlora.viz.widgets.inputs import InputsView
from dynlora.viz.widgets.model_answers import ask_model
from dynlora.viz.widgets.picker import is_read_only, link, list_all, runs_dir
from dynlora.viz.widgets.playground import token_card

LABS = {
    "text": "perturbed text",
    "group": "group by group",
    "data": "another data set",
    "train": "train without a group",
}
"""What can be tried, and what people call it."""

MOST_SOURCES = 20
"""Data sets of other runs that are offered."""


def shift_lab(folder: Path, summary: Mapping[str, Any], modules: pd.DataFrame, groups: Sequence[str]) -> None:
    """Draw the lab.

    Args:
        folder: of the run.
        summary: as `queries.run_summary` returns it.
        modules: as `capacity.described` returns them.
        groups: names of the input groups.
    """
    with card("Shift lab: how does it fare where the inputs are others?", "shift"):
        lab = segmented("lab", "what to try", list(LABS), "text", LABS.__getitem__)
        if lab == "text":
            _perturbed(folder, summary, modules)
        elif lab == "group":
            _groups(folder)
        elif lab == "data":
            _elsewhere(folder, summary, modules)
        else:
            _train_without(folder, summary, groups)


def model_cards(folder: Path) -> None:
    """Draw what the Inputs page asks the trained model: one example word by word, and the lab.

    Raises:
        DynloraError: when the run cannot be read.
    """
    summary = answers.ask(queries.run_summary, folder)
    if summary["step"]:
        view = InputsView(folder, summary, answers.modules(folder), summary["step"])
        token_card(view)
        shift_lab(folder, summary, view.modules, view.groups["group"].tolist())


def _perturbed(folder: Path, summary: Mapping[str, Any], modules: pd.DataFrame) -> None:
    """Draw a perturbation of the held-out texts and what it does."""
    with st.container(horizontal=True, vertical_alignment="bottom", key="shift-controls"):
        kind = choose(
            "kind", "what happens to the texts", list(shifts.KINDS), "cut", shifts.KINDS.__getitem__, width=220
        )
        strength = choose(
            "strength", shifts.STRENGTHS.get(kind, "share of the words"), (0.1, 0.25, 0.5, 0.75, 1.0), 0.5,
            lambda share: f"{100 * share:.0f} %", width=160,
        )  # fmt: skip
        if not st.toggle("try it", key=f"shift-on-{folder.name}"):
            note("Evaluates the trained adapter on up to 512 held-out rows, as they are and perturbed.")
            return
    found = ask_model(folder, "shift", kind=kind, strength=strength)
    if found is None:
        return
    frame = shifts.metric_table({"as they are": found["before"], "perturbed": found["after"]})
    left, right = st.columns([2, 3])
    with left:
        rows(frame.round(4))
        for example in found["examples"]:
            st.caption(safe(f"{one_line(example['before'], 90)} → {one_line(example['after'], 90)}"))
    with right:
        _gates(found["before"], found["after"], modules, "shift-gates")
    under(shifts.shift_sentence(found, summary["metric"]), frame, "shift")


def _gates(before: Mapping[str, Any], after: Mapping[str, Any], modules: pd.DataFrame, key: str) -> None:
    """Draw how the gates move, or say that there are none."""
    frame = shifts.gate_frame(before, after, modules)
    if frame.empty:
        note("This run has no gates that could move.")
        return
    told = "The mean gate of each module on the rows as they are, and after."
    chart(figures_playground.gate_shift(frame, colours()), told, frame, key)


def _groups(folder: Path) -> None:
    """List metrics by group on the last adapter."""
    if not st.toggle("evaluate group by group", key=f"groups-on-{folder.name}"):
        note("Evaluates the trained adapter on up to 512 held-out rows, each input group apart.")
        return
    found = ask_model(folder, "by_group")
    if found is not None:
        rows(shifts.group_table(found).round(4))


def _elsewhere(folder: Path, summary: Mapping[str, Any], modules: pd.DataFrame) -> None:
    """Evaluate on the held-out rows of data that another run was trained on."""
    sources = other_data(summary, list_all())
    if not sources:
        note("Data of other runs can be tried here, if its labels have the same names; there is none yet.")
        return
    name = st.selectbox("held-out rows of", [None, *sources], format_func=lambda key: key or "choose", key="shift-data")
    if name is None:
        return
    found, own = ask_model(folder, "elsewhere", data=sources[name]), ask_model(folder, "by_group")
    if found is None or own is None:
        return
    rows(shifts.metric_table({"own data": own["whole"], one_line(name, 40): found}).round(4))
    _gates(own["whole"], found, modules, "elsewhere-gates")


def other_data(summary: Mapping[str, Any], runs: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """Return the data sections of other runs' configurations by their source, those of this run's own left out.

    Args:
        summary: of the run, as `queries.run_summary` returns it.
        runs: as `queries.list_runs` lists them.
    """
    found: dict[str, dict[str, Any]] = {}
    others = runs[runs["data"].notna() & (runs["data"] != summary.get("data")) & (runs["status"] != "corrupt")]
    for source, part in list(others.groupby("data", sort=False))[:MOST_SOURCES]:
        config = answers.ask(queries.run_summary, Path(str(part["folder"].iloc[0]))).get("config") or {}
        section = config.get("data")
        if isinstance(section, dict):
            found[one_line(source, 60)] = section
    return found


def _train_without(folder: Path, summary: Mapping[str, Any], groups: Sequence[str]) -> None:
    """Queue the same run on some groups alone; the others stay held out and are reported apart."""
    config = summary.get("config") or {}
    if len(groups) < 2 or (config.get("data") or {}).get("group_by") == "clusters":
        note("Needs at least two input groups that are known before training, such as a column of the data.")
        return
    if is_read_only():
        note("This dashboard only shows; runs are started where it runs.")
        return
    trained = (config.get("data") or {}).get("train_groups")
    if trained:
        note(f"This run was trained on {listed(list(map(str, trained)), 6)} alone; the other groups are new to it.")
    left_out = st.multiselect("groups it never sees in training", list(groups), key="left-out")
    kept = [name for name in groups if name not in left_out]
    if st.button("Train on the others", icon=":material/rocket_launch:", disabled=not left_out or not kept):
        values = {**config, "name": f"{summary['name']} without {listed(left_out, 3)}"[:200]}
        values["data"] = {**(config.get("data") or {}), "train_groups": kept}
        try:
            with st.spinner("Checking the configuration …"):
                token = st.session_state.setdefault("shift-token", secrets.token_hex(8))
                run = launch.enqueue(values, runs_dir(), key=launch_key(token, values))
        except DynloraError as error:
            st.error(safe(str(error)))
            return
        st.success("Queued. Its Inputs page will show how it fares on what it never saw.")
        link("pages/run.py", "Watch it", run=run.id)  # on the page one is on the picker keeps its run
