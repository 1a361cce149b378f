"""The form that makes one LoRA of finished runs: taught by them, and why a run cannot teach; or merged of them."""

from __future__ import annotations

import shlex
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import streamlit as st

from dynlora.errors import DynloraError
from dynlora.jobs.kinds import enqueue
from dynlora.jobs.launch import RunHandle
from dynlora.kinds.distil.settings import NOT_RECYCLE, check_writer, settings_of_teachers, writes
from dynlora.kinds.merge.settings import MergeSettings
from dynlora.kinds.merge.text import METHODS
from dynlora.kinds.merge.text import WHAT as MERGING
from dynlora.kinds.named_runs import named_run
from dynlora.kinds.recycle.settings import blocks_of, check_teacher, classes_of
from dynlora.kinds.recycle.text import WHAT
from dynlora.text import one_line, plural, sentence_case
from dynlora.viz.kinds.view import KindPage, source_of, usable_runs
from dynlora.viz.ui.cards import note
from dynlora.viz.ui.run_picker import is_read_only, run_labels, runs_dir

PAGE = KindPage("recycle", WHAT)

MOST_LOOKED_AT = 200
"""Newest finished runs that are offered as teachers."""

WRITES = -1
"""Stands for the number of classes of a run that writes texts."""

EFFORTS = {"Quick": (20, 80), "Usual": (40, 150), "Thorough": (100, 500)}
"""(iterations of the inversion, episodes) by name."""

DISTIL_EFFORTS = {"Quick": (32, 100), "Usual": (64, 200), "Thorough": (256, 1000)}
"""(texts of each teacher, steps of the student) by name."""


TEACH, MERGE = "Teach", "Merge"
WAYS = {TEACH: "Runs teach one LoRA", MERGE: "Merge adapters"}
"""What the form makes of finished runs."""

BUDGETS: dict[str, float | None] = {"As the largest run": None, "Half of all together": 0.5, "All together": 1.0}
"""Budget of a merge by name."""


def recycle_form(*, is_open: bool) -> None:
    """Draw the form.

    Args:
        is_open: whether it is shown without a click.
    """
    with PAGE.form(is_open=is_open):
        runs = usable_runs().head(MOST_LOOKED_AT)
        if is_read_only():
            note("This dashboard is read-only.")
            return
        way = st.segmented_control(
            "What is made",
            list(WAYS),
            default=TEACH,
            key="recycle-way",
            format_func=WAYS.__getitem__,
            label_visibility="collapsed",
        )
        if way == MERGE:
            _merge_fields(runs)
            return
        able, unable = _fitting(runs)
        _say_unable(unable)
        if not able:
            note(
                "No finished run can teach yet. A teacher is a run that classifies, or writes texts, and kept its "
                "adapter: launch one first."
            )
            return
        _fields(runs, able)


@st.cache_data(max_entries=500, ttl=600, show_spinner=False)
def _teacher(source: str, status: str) -> tuple[str, int, str]:
    """Return (what it adapts, classes, why it cannot teach) of a run; the last is empty for one that can."""
    try:
        found = named_run("teacher", source, Path(source).parent)
        if writes(found):
            check_writer(found)
            return blocks_of(found), WRITES, ""
        check_teacher(found)
    except DynloraError as error:
        return "", 0, str(error)
    return blocks_of(found), len(classes_of(found)), ""


def _fitting(runs: pd.DataFrame) -> tuple[dict[str, tuple[str, int]], dict[str, str]]:
    """Return (what it adapts, classes) of the runs that can teach, and why the others cannot."""
    able, unable = {}, {}
    for run_id, folder, status in zip(runs["id"], runs["folder"], runs["status"], strict=True):
        base, classes, why = _teacher(str(folder), str(status))
        if why:
            unable[run_id] = why
        else:
            able[run_id] = (base, classes)
    return able, unable


def _say_unable(unable: dict[str, str]) -> None:
    if unable:
        with st.popover(f"{plural(len(unable), 'run')} that cannot teach", type="tertiary", key="recycle-unable"):
            for why in list(unable.values())[:50]:
                note(why)


def _fields(runs: pd.DataFrame, able: dict[str, tuple[str, int]]) -> None:
    """Draw the fields, what is refused, and the button."""
    words = run_labels(runs[runs["id"].isin(able)])
    chosen = st.multiselect(
        "Teachers",
        list(words),
        key="recycle-teachers",
        format_func=lambda run: f"{words[run]} ({_knows(able[run][1])})",
        help="Finished runs of one base model that all classify, or all write texts. Their data is not needed.",
    )
    is_writing = bool(chosen) and all(able[run][1] == WRITES for run in chosen)
    settings = {"teachers": [source_of(run) for run in chosen], **(_distil_fields() if is_writing else _episodes())}
    missing = _missing(chosen, able, settings.get("ways", 0))
    message = missing or "The time is estimated when it starts, and shown on its page."
    line = command("recycle", "teachers", settings)
    PAGE.start("Start", settings, partial(_queued, settings), message, line, is_ready=not missing)


def _merge_fields(runs: pd.DataFrame) -> None:
    """Draw the fields of a merge, what is refused, and the button."""
    note(MERGING)
    labels, about = run_labels(runs), MergeSettings.model_fields
    chosen = st.multiselect(
        "Runs", list(labels), key="merge-sources", format_func=labels.__getitem__, help=about["sources"].description
    )
    first, second, third = st.columns(3)
    method = first.selectbox(
        "Method",
        list(METHODS),
        key="merge-method",
        format_func=lambda name: sentence_case(METHODS[name]),
        help=about["method"].description,
    )
    budget = second.selectbox(
        "Parameters, at most", list(BUDGETS), key="merge-budget", help=about["budget"].description
    )
    weights = third.text_input("Weights", placeholder="equal", key="merge-weights", help=about["weights"].description)
    settings: dict[str, Any] = {"sources": [source_of(run) for run in chosen], "method": method}
    settings |= {} if BUDGETS[budget] is None else {"budget": BUDGETS[budget]}
    settings |= {"weights": weights.strip()} if weights.strip() else {}
    missing = _why_not_merged(settings)
    message = missing or "It takes no training: a step for each module, then a test on the data of each run."
    queue = partial(_queued_merge, settings)
    PAGE.start("Merge", settings, queue, message, command("merge", "sources", settings), is_ready=not missing)


def _why_not_merged(settings: dict[str, Any]) -> str:
    """Return what keeps a merge from starting, empty for nothing."""
    if len(settings["sources"]) < 2:
        return "Choose two runs or more."
    try:
        MergeSettings.parse(settings).check(runs_dir())
    except DynloraError as error:
        return str(error)
    return ""


def _queued_merge(settings: dict[str, Any], key: str) -> RunHandle:
    return enqueue(MergeSettings.parse(settings), runs_dir(), key=key)


def _knows(classes: int) -> str:
    return "writes texts" if classes == WRITES else f"{classes} classes"


def _episodes() -> dict[str, Any]:
    """Draw the fields of a recycle of classifiers and return the settings."""
    first, second, third = st.columns(3)
    ways = first.number_input("Ways (classes per episode)", 2, 100, 5, key="recycle-ways")
    effort = second.selectbox("Effort", list(EFFORTS), index=1, key="recycle-effort")
    noise = third.toggle("Control: learn from noise too", key="recycle-noise", help="Doubles the time of the episodes.")
    iterations, episodes = EFFORTS[effort]
    found: dict[str, Any] = {"ways": int(ways), "iterations": iterations, "episodes": episodes}
    return found | ({"noise": True} if noise else {})


def _distil_fields() -> dict[str, Any]:
    """Draw the fields of a distillation and return its settings."""
    note(NOT_RECYCLE)
    first, second, third = st.columns(3)
    effort = first.selectbox("Effort", list(DISTIL_EFFORTS), index=1, key="distil-effort")
    rank = second.number_input("Rank of the student", 1, 1024, 8, key="distil-rank")
    tokens = third.number_input("Tokens per text, at most", 2, 4096, 64, key="distil-tokens")
    samples, steps = DISTIL_EFFORTS[effort]
    return {"samples": samples, "train_steps": steps, "rank": int(rank), "tokens": int(tokens)}


def _missing(chosen: list[str], able: dict[str, tuple[str, int]], ways: int) -> str:
    """Return what keeps the recycle from starting, empty for nothing."""
    if not chosen:
        return "Choose one teacher or several."
    bases = list(dict.fromkeys(able[run][0] for run in chosen))
    if len(bases) > 1:
        return f"These teachers adapt {one_line(bases[0], 40)} and {one_line(bases[1], 40)}: choose one base model."
    writers = sum(able[run][1] == WRITES for run in chosen)
    if 0 < writers < len(chosen):
        return "Some of these teachers write texts and others classify: choose one kind."
    classes = sum(able[run][1] for run in chosen)
    return f"These teachers have {classes} classes together, fewer than {ways} ways." if 0 <= classes < ways else ""


def command(name: str, runs: str, settings: dict[str, Any]) -> str:
    """Return the command that does the same.

    Args:
        name: of the command.
        runs: the setting that names the runs.
        settings: as plain values.
    """
    options = [
        f"--{key.replace('_', '-')}" + ("" if value is True else f"={value}")
        for key, value in settings.items()
        if key != runs
    ]
    return shlex.join(["dynlora", name, *settings[runs], *options, "--runs-dir", str(runs_dir())])


def _queued(settings: dict[str, Any], key: str) -> RunHandle:
    return enqueue(settings_of_teachers(settings, runs_dir()), runs_dir(), key=key)
