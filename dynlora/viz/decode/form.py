"""The form that starts a decode: two runs that write, a reward, problems and thresholds."""

from __future__ import annotations

import secrets
import shlex
from typing import Any

import pandas as pd
import streamlit as st

from dynlora.errors import DynloraError
from dynlora.jobs.kinds import enqueue
from dynlora.kinds.decode import DecodeSettings
from dynlora.viz.kit.config_fields import launch_key
from dynlora.viz.ui.cards import card, note
from dynlora.viz.ui.frame import refusal
from dynlora.viz.ui.run_picker import find_run, is_read_only, list_all, run_labels, runs_dir
from dynlora.viz.ui.toasts import announce

WRITES = "causal_lm"
JUDGES = "classification"
REWARD_WORDS = {
    "target-likelihood": "Target's likelihood of the step",
    "target-token": "Target's answer to: is this step right?",
    "oracle": "Oracle: checks the arithmetic (upper bound)",
}
GRIDS = {
    "0.3, 0.5, 0.7, 0.9": (0.3, 0.5, 0.7, 0.9),
    "0.7": (0.7,),
    "0.0 to 1.0 by 0.1": tuple(n / 10 for n in range(11)),
}
CONTROLS = {"0.25, 0.5, 0.75": (0.25, 0.5, 0.75), "0.5": (0.5,), "None": ()}
LIMITS = (20, 50, 100, 200, 480)


def decode_form(*, is_open: bool) -> None:
    """Draw the form.

    Args:
        is_open: whether it is shown without a click.
    """
    with st.expander("New decode", expanded=is_open, icon=":material/add:"), card("New decode", "decode-new"):
        runs = list_all()
        runs = runs[runs["status"].isin(("finished", "stopped"))]
        writers, judges = runs[runs["task"] == WRITES], runs[runs["task"] == JUDGES]
        if is_read_only() or writers.empty:
            why = "This dashboard is read-only." if is_read_only() else "There is no finished run of a language model."
            note(f"{why} `dynlora rsd prepare` trains a target, a draft and a judge on arithmetic.")
            return
        settings = _settings(writers, judges)
        _start(settings)


def _settings(writers: pd.DataFrame, judges: pd.DataFrame) -> dict[str, Any]:
    """Draw the fields and return the settings as plain values."""
    words, judged = run_labels(writers), run_labels(judges)
    first, second, third = st.columns(3)
    names = list(words)
    draft = first.selectbox("Draft (writes each step)", names, format_func=words.__getitem__, key="decode-draft")
    target = second.selectbox(
        "Target (rewrites rejected steps)", names, index=min(1, len(names) - 1), format_func=words.__getitem__,
        key="decode-target",
    )  # fmt: skip
    reward = third.selectbox(
        "Reward (judges each step)", [*REWARD_WORDS, *judged],
        format_func=lambda key: REWARD_WORDS.get(key) or judged[key], key="decode-reward",
    )  # fmt: skip
    first, second, third = st.columns(3)
    values = first.selectbox(
        "Thresholds", list(GRIDS), key="decode-values", help="Each threshold is a decode of every problem."
    )
    control = second.selectbox(
        "Control: accept at random", list(CONTROLS), key="decode-control",
        help="Accepts a step with this probability whatever its reward is.",
    )  # fmt: skip
    limit = third.selectbox("Problems", LIMITS, key="decode-limit", help="Held-out problems of the target's data.")
    return {
        "draft": _source(draft), "target": _source(target),
        "reward": reward if reward in REWARD_WORDS else _source(reward),
        "values": GRIDS[values], "control": CONTROLS[control], "limit": limit,
    }  # fmt: skip


def _source(run_id: str) -> str:
    """Return how the settings name a run: by its id, or by its folder where it is a sample."""
    run = find_run(run_id)
    return run.id if run.is_own else str(run.folder)


def _start(settings: dict[str, Any]) -> None:
    """Draw the button that queues the decode, and the command that does the same."""
    decodes = DecodeSettings.parse(settings).points
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key="decode-actions"):
        if st.button("Start decoding", type="primary", icon=":material/play_arrow:", key="decode-start"):
            _enqueue(settings)
        note(f"{decodes} decodes of {settings['limit']} problems, the draft alone and the target alone among them.")
        with st.popover("Command line", icon=":material/terminal:", type="tertiary", key="decode-command"):
            st.code(command(settings), language="bash", wrap_lines=True)


def command(settings: dict[str, Any]) -> str:
    """Return the command that does the same."""
    values = ",".join(f"{value:g}" for value in settings["values"])
    control = ",".join(f"{value:g}" for value in settings["control"])
    parts = ["dynlora", "rsd", "--draft", settings["draft"], "--target", settings["target"], "--reward",
             settings["reward"], "--threshold", values, *(["--control", control] if control else []),
             "--limit", str(settings["limit"]), "--runs-dir", str(runs_dir())]  # fmt: skip
    return shlex.join(parts)


def _enqueue(settings: dict[str, Any]) -> None:
    """Queue the decode and open it; a refusal is said on the page."""
    token = st.session_state.setdefault("decode-token", secrets.token_hex(8))
    try:
        made = enqueue(DecodeSettings.parse(settings), runs_dir(), key=launch_key(token, settings))
    except (DynloraError, OSError) as error:
        st.error(refusal(error))
        return
    st.session_state.pop("decode-token", None)
    announce("Decode queued")
    st.switch_page("pages/decode.py", query_params={"run": made.id})
