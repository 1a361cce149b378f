"""The form that starts a sweep: a base, lists of values, and how many runs that makes."""

from __future__ import annotations

import secrets
import shlex

import pandas as pd
import streamlit as st

from dynlora.analysis.config_fields import launch_key
from dynlora.errors import DynloraError
from dynlora.jobs.sweep import count, enqueue_sweep, listed, section_choices
from dynlora.store import queries
from dynlora.text import markdown_text
from dynlora.viz.launch.search_form import search_form
from dynlora.viz.ui.frame import say_read_only
from dynlora.viz.ui.run_picker import find_run, is_read_only, run_labels, runs_dir
from dynlora.viz.ui.url_state import segmented

WAYS = {"all": "All combinations", "search": "Search"}
EXAMPLE = "seed=0..2\nstrategy.name=lora,dynamic"


def sweep_form(runs: pd.DataFrame) -> None:
    """Draw the form; a sentence where the dashboard only looks.

    Args:
        runs: the runs whose settings a sweep can start from, newest first.
    """
    if is_read_only():
        say_read_only()
        return
    ways = segmented("sweep", "Values", list(WAYS), "all", WAYS.__getitem__)
    if ways == "search":
        search_form(runs)
        return
    words = run_labels(runs[~runs["status"].isin(["corrupt"])].head(200)) if len(runs) else {}
    left, right = st.columns(2)
    with left:
        base = st.selectbox(
            "Settings of",
            ["", *words],
            key="sweep-base",
            format_func=lambda run_id: words.get(run_id, "Defaults"),
            help="Settings that all runs of the sweep share: those of a run, or the defaults.",
        )
        name = st.text_input(
            "Name", key="sweep-name", max_chars=120, help=("Prefix of the run names, before the values that vary.")
        )
    with right:
        lines = st.text_area(
            "Values, one key per line",
            EXAMPLE,
            key="sweep-lines",
            height=122,
            max_chars=5000,
            help="key=a,b,c or key=0..4. One run per combination. All are checked before the first is queued.",
        )
    _act(base, name.strip(), lines)


def _act(base: str, name: str, lines: str) -> None:
    """Say how many runs these are and queue them when asked to."""
    try:
        lists = listed(lines)
        n = count(section_choices(dict(lists)))
        config = dict(queries.run_summary(find_run(base).folder)["config"]) if base else {}
    except DynloraError as error:
        st.error(markdown_text(error, 2000))
        return
    config["name"] = name or None
    token = st.session_state.setdefault("sweep_token", secrets.token_hex(8))
    st.code(_command(base, name, lists), language="bash", wrap_lines=True)
    if not lists:
        st.caption("Write one key and its values, such as seed=0..2.")
    elif st.button(f"Queue {n} run{'' if n == 1 else 's'}", key="sweep-start", type="primary"):
        _queue(config, lists, launch_key(token, {"config": config, "lists": lists}))


def _queue(config: dict[str, object], lists: dict[str, str], key: str) -> None:
    try:
        with st.spinner("Checking every run of the sweep; the first may download the model"):
            ids = enqueue_sweep(config, lists, runs_dir(), key=key)
    except DynloraError as error:
        st.error(markdown_text(error, 2000))
        return
    st.session_state.pop("sweep_token", None)
    st.switch_page("pages/compare.py", query_params={"runs": ",".join(ids)})


def _command(base: str, name: str, lists: dict[str, str]) -> str:
    parts = ["dynlora", "sweep"]
    if base:
        parts += ["--config", str(find_run(base).folder / "config.yaml")]
    if name:
        parts += ["--name", name]
    for key, values in lists.items():
        parts += ["--set", f"{key}={values}"]
    return shlex.join([*parts, "--runs-dir", str(runs_dir())])
