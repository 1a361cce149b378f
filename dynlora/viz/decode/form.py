"""The form that starts a decode: two runs that write, a reward, problems and thresholds."""

from __future__ import annotations

import shlex
from functools import partial
from typing import Any

import pandas as pd
import streamlit as st

from dynlora.jobs.kinds import enqueue
from dynlora.jobs.launch import RunHandle
from dynlora.kinds.decode.settings import DecodeSettings
from dynlora.kinds.decode.text import WHAT
from dynlora.store.schema import command_text
from dynlora.viz.kinds.view import KindPage, source_of, usable_runs
from dynlora.viz.ui.cards import note
from dynlora.viz.ui.run_picker import is_read_only, run_labels, runs_dir

PAGE = KindPage("decode", WHAT)

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
    with PAGE.form(is_open=is_open):
        runs = usable_runs()
        writers, judges = runs[runs["task"] == WRITES], runs[runs["task"] == JUDGES]
        if is_read_only() or writers.empty:
            why = "This dashboard is read-only." if is_read_only() else "There is no finished run of a language model."
            prepare = command_text("rsd", "prepare", runs_dir=runs_dir())
            note(f"{why} `{prepare}` trains a target, a draft and a judge on arithmetic.")
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
        "Target (rewrites rejected steps)",
        names,
        index=min(1, len(names) - 1),
        format_func=words.__getitem__,
        key="decode-target",
    )
    reward = third.selectbox(
        "Reward (judges each step)",
        [*REWARD_WORDS, *judged],
        format_func=lambda key: REWARD_WORDS.get(key) or judged[key],
        key="decode-reward",
    )
    first, second, third = st.columns(3)
    values = first.selectbox(
        "Thresholds", list(GRIDS), key="decode-values", help="Each threshold is a decode of every problem."
    )
    control = second.selectbox(
        "Control: accept at random",
        list(CONTROLS),
        key="decode-control",
        help="Accepts a step with this probability whatever its reward is.",
    )
    limit = third.selectbox("Problems", LIMITS, key="decode-limit", help="Held-out problems of the target's data.")
    return {
        "draft": source_of(draft),
        "target": source_of(target),
        "reward": reward if reward in REWARD_WORDS else source_of(reward),
        "values": GRIDS[values],
        "control": CONTROLS[control],
        "limit": limit,
    }


def _start(settings: dict[str, Any]) -> None:
    """Draw the button that queues the decode, and the command that does the same."""
    decodes = DecodeSettings.parse(settings).points
    said = f"{decodes} decodes of {settings['limit']} problems, the draft alone and the target alone among them."
    PAGE.start("Start decoding", settings, partial(_queued, settings), said, command(settings))


def _queued(settings: dict[str, Any], key: str) -> RunHandle:
    return enqueue(DecodeSettings.parse(settings), runs_dir(), key=key)


def command(settings: dict[str, Any]) -> str:
    """Return the command that does the same."""
    values = ",".join(f"{value:g}" for value in settings["values"])
    control = ",".join(f"{value:g}" for value in settings["control"])
    parts = [
        "dynlora",
        "rsd",
        "--draft",
        settings["draft"],
        "--target",
        settings["target"],
        "--reward",
        settings["reward"],
        "--threshold",
        values,
        *(["--control", control] if control else []),
        "--limit",
        str(settings["limit"]),
        "--runs-dir",
        str(runs_dir()),
    ]
    return shlex.join(parts)
