"""Robustness tests of the Inputs page: the trained adapter on other text, and runs without a group."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import streamlit as st

from dynlora.analysis import input_frames
from dynlora.analysis.config_fields import launch_key
from dynlora.analysis.inputs_reading import inputs_of
from dynlora.analysis.run_reading import read_run
from dynlora.errors import DynloraError
from dynlora.jobs import launch
from dynlora.store import queries
from dynlora.text import listed, one_line, source_name
from dynlora.viz.inputs.cards import loss_cards
from dynlora.viz.playground import figures as playground_figures
from dynlora.viz.playground.cards import run_task, token_card
from dynlora.viz.playground.model import Task
from dynlora.viz.shift import model as shift_model
from dynlora.viz.ui import cached_queries
from dynlora.viz.ui.cards import card, chart, colours, note, rows, safe, under
from dynlora.viz.ui.model_client import ask_model, prepare_model
from dynlora.viz.ui.run_picker import is_read_only, link, list_all, runs_dir
from dynlora.viz.ui.url_state import choose, from_where_it_started, put, section, segmented, several, to_address

LABS = {
    "text": "Perturbed text",
    "group": "Input groups",
    "data": "Other data",
    "train": "Train without a group",
}
"""What can be tried, and what people call it."""

MOST_SOURCES = 20
"""Data sets of other runs that are offered."""

FILE, HERE = "file", "A file on this machine"
"""What stands for a file in the address, and in the list."""


def shift_lab(folder: Path, summary: Mapping[str, Any], modules: pd.DataFrame, groups: Sequence[str]) -> None:
    """Draw the lab.

    Args:
        folder: of the run.
        summary: as `queries.run_summary` returns it.
        modules: as `capacity.described` returns them.
        groups: names of the input groups.
    """
    with card("Robustness and distribution shift", "shift"):
        lab = segmented("lab", "Test", list(LABS), "text", LABS.__getitem__)
        if lab == "text":
            _perturbed(folder, summary, modules)
        elif lab == "group":
            _groups(folder, summary, modules)
        elif lab == "data":
            _elsewhere(folder, summary, modules)
        else:
            _train_without(folder, summary, groups)


PERTURBATION = "perturbation"
"""Name in the address of the perturbation of texts; it was `kind`, which is that of modules on all views of a run."""

TOKEN_CONTROLS = ("example", "order", "token-colour", "token-step", "token-order")
SHIFT_CONTROLS = ("lab", PERTURBATION, "strength", "tried", "apart", "source", "path", "left")
"""Names in the address of what is chosen in the two parts that ask the model."""


def model_sections(folder: Path) -> None:
    """Draw openers of what the Inputs page asks the trained model: one example word by word, and the lab.

    Raises:
        DynloraError: when the run cannot be read.
    """
    summary = cached_queries.ask(queries.run_summary, folder)
    if not summary["step"]:
        return
    if st.query_params.get("kind") in shift_model.KINDS:
        to_address(**{PERTURBATION: st.query_params["kind"], "kind": None})
    task = run_task(folder)
    writes = task is not None and task.writes
    words = "Loss by example and token" if writes else "Effect of each token"
    view = inputs_of(read_run(folder, cached_queries.CACHED, summary))
    with section("tokens", words, TOKEN_CONTROLS) as is_open:
        if is_open:
            prepare_model()
            if writes:
                loss_cards(view, has_best=(folder / "adapter-best").is_dir())
            else:
                token_card(view)
    with section("shift", "Robustness and distribution shift", SHIFT_CONTROLS) as is_open:
        if is_open:
            prepare_model()
            shift_lab(folder, summary, view.modules, view.names)


def _perturbed(folder: Path, summary: Mapping[str, Any], modules: pd.DataFrame) -> None:
    """Draw a perturbation of the held-out texts and what it does."""
    with st.container(horizontal=True, vertical_alignment="bottom", key="shift-controls"):
        kind = choose(
            PERTURBATION,
            "Perturbation",
            list(shift_model.KINDS),
            "cut",
            shift_model.KINDS.__getitem__,
            width=220,
        )
        strength = choose(
            "strength",
            shift_model.STRENGTHS.get(kind, "Fraction of words"),
            (0.1, 0.25, 0.5, 0.75, 1.0),
            0.5,
            lambda share: f"{100 * share:.0f} %",
            width=160,
        )
        if not _switch("tried", "Evaluate perturbed text"):
            note("Evaluates the trained adapter on up to 512 held-out examples, original and perturbed.")
            return
    answer = ask_model(folder, "shift", kind=kind, strength=strength)
    if answer is None:
        return
    frame = shift_model.metric_table({"original": answer["before"], "perturbed": answer["after"]})
    left, right = st.columns([2, 3])
    with left:
        rows(frame.round(4))
        _example_texts(answer["examples"])
    with right:
        _gates(answer["before"], answer["after"], modules, "shift-gates")
    under(shift_model.shift_caption(answer, summary["metric"]), frame, "shift")


def _example_texts(examples: Sequence[Mapping[str, str]]) -> None:
    """List some texts and what was made of them."""
    for example in examples:
        st.caption(safe(f"{one_line(example['before'], 90)} → {one_line(example['after'], 90)}"))


def _gates(before: Mapping[str, Any], after: Mapping[str, Any], modules: pd.DataFrame, key: str) -> None:
    """Draw how the gates move, or say that there are none."""
    frame = shift_model.gate_frame(before, after, modules)
    if frame.empty:
        note("This run has no gates.")
        return
    caption = "Mean gate of each module on the original and the changed inputs."
    chart(playground_figures.gate_shift(frame, colours()), caption, frame, key)


def _switch(name: str, label: str) -> bool:
    """Draw a switch whose state lives in the address, and return it."""
    key = f"address-{name}"
    put(key, st.query_params.get(name) == "on")
    st.toggle(label, key=key, on_change=lambda: to_address(**{name: "on" if st.session_state[key] else None}))
    return bool(st.session_state[key])


def _groups(folder: Path, summary: Mapping[str, Any], modules: pd.DataFrame) -> None:
    """List metrics by group on the last adapter, and draw the gates that each group opens."""
    if not _switch("apart", "Evaluate each group"):
        note("Evaluates the trained adapter on up to 512 held-out examples, separately for each input group.")
        return
    answer = ask_model(folder, "by_group")
    if answer is None:
        return
    rows(shift_model.group_table(answer, summary).round(4))
    gates = shift_model.group_gates(answer, summary, modules)
    if gates.empty:
        note("This run has no gates." if answer["groups"] else "This run has no input groups.")
        return
    figure = playground_figures.group_gates(gates, modules, colours())
    chart(figure, shift_model.group_gates_caption(gates, modules), input_frames.gate_table(gates), "apart-gates")


def _elsewhere(folder: Path, summary: Mapping[str, Any], modules: pd.DataFrame) -> None:
    """Evaluate on the held-out examples of data that another run was trained on, that is built-in, or that is here."""
    task = run_task(folder)
    if task is None:
        return
    sources = other_data(summary, task, list_all())
    words = {"": "Choose data", **shift_model.source_labels(list(sources)), **({} if is_read_only() else {FILE: HERE})}
    if len(words) == 1:
        note("No data of other runs has the same label names as this run.")
        return
    name = choose("source", "Held-out examples of", list(words), "", words.__getitem__)
    section = _of_file(task, summary) if name == FILE else sources.get(name)
    if section is None:
        note(f"Only data with the same label names can be used: {task.words}.")
        return
    answer, own = ask_model(folder, "elsewhere", data=section), ask_model(folder, "by_group")
    if answer is None or own is None:
        return
    title = one_line(source_name(section.get("path") or section.get("name")), 40)
    title = title if title != "own data" else "other data"
    frame = shift_model.metric_table({"own data": own["whole"], title: answer})
    rows(frame.round(4))
    _gates(own["whole"], answer, modules, "elsewhere-gates")
    under(shift_model.elsewhere_caption(own["whole"], answer, title, summary["metric"]), frame, "elsewhere")


def _of_file(task: Task, summary: Mapping[str, Any]) -> dict[str, Any] | None:
    """Draw the path of a file of this machine and return its section `data`, None while there is none that fits."""
    put("address-path", st.query_params.get("path", ""))
    text = st.text_input(
        "Path on this machine",
        key="address-path",
        max_chars=500,
        on_change=_path_changed,
        help="CSV, TSV, JSON, Parquet or Excel, or a folder with train.* and validation.* files. Of a single "
        "file, half of the examples are used, at most 512.",
    ).strip()
    if not text:
        return None
    if text.startswith(("//", "\\\\")):  # another machine's: looking there would tell it who we are
        st.error("The path is on another machine. Copy the file to this machine.")
        return None
    try:
        return shift_model.file_section(
            from_where_it_started(text), task, (summary.get("config") or {}).get("data") or {}
        )
    except RuntimeError:
        st.error("The path starts with an unknown user. Write the full path.")
        return None
    except DynloraError as error:
        st.error(safe(str(error)))
        return None


def _path_changed() -> None:
    to_address(path=st.session_state["address-path"].strip() or None)


def other_data(summary: Mapping[str, Any], task: Task, runs: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """Return sections `data` by their source: of other runs with the same task, then built-in; the run's own left out.

    Args:
        summary: of the run, as `queries.run_summary` returns it.
        task: of the run.
        runs: as `queries.list_runs` lists them.
    """
    sections: dict[str, dict[str, Any]] = {}
    others = runs[runs["data"].notna() & (runs["data"] != summary.get("data")) & (runs["status"] != "corrupt")]
    for source, part in others.groupby("data", sort=False):
        section = part["config"].iloc[0].get("data")
        if isinstance(section, dict) and run_task(Path(str(part["folder"].iloc[0]))) == task:
            sections[str(source)] = section
        if len(sections) == MOST_SOURCES:
            break
    return shift_model.embedded_data(task, summary.get("data")) | sections


def _train_without(folder: Path, summary: Mapping[str, Any], groups: Sequence[str]) -> None:
    """Queue the same run on some groups alone; the others stay held out and are reported apart."""
    config = summary.get("config") or {}
    if len(groups) < 2 or (config.get("data") or {}).get("group_by") == "clusters":
        note("This needs at least two input groups that are known before training, such as a column of the data.")
        return
    if is_read_only():
        note("This dashboard is read-only. Start runs on the machine of the dashboard.")
        return
    trained = (config.get("data") or {}).get("train_groups")
    if trained:
        note(
            f"This run was trained on {listed(list(map(str, trained)), 6)} only; it has not seen the other "
            "groups in training."
        )
    left_out = several("left", "Groups to leave out of training", groups, {}, width="stretch", none="Choose groups")
    remaining = [name for name in groups if name not in left_out]
    if st.button("Train on the other groups", icon=":material/rocket_launch:", disabled=not left_out or not remaining):
        values = {**config, "name": f"{summary['name']} without {listed(list(left_out), 3)}"[:200]}
        values["data"] = {**(config.get("data") or {}), "train_groups": remaining}
        try:
            with st.spinner("Checking the configuration"):
                token = st.session_state.setdefault("shift-token", secrets.token_hex(8))
                run = launch.enqueue(values, runs_dir(), key=launch_key(token, values))
        except DynloraError as error:
            st.error(safe(str(error)))
            return
        st.success("The run is queued. Its Inputs page will show the results on the groups it was not trained on.")
        link("pages/run.py", "Open run", run=run.id)  # on the page one is on the picker keeps its run
