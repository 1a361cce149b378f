"""What can be done with runs from a page: tick, delete, restore, stop, resume."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import pandas as pd
import streamlit as st

from dynlora.analysis.seed_groups import launch_key
from dynlora.errors import DynloraError
from dynlora.jobs import launch
from dynlora.jobs import queue as run_queue
from dynlora.jobs.launch import RunHandle, in_queue
from dynlora.jobs.quick_launch import start
from dynlora.jobs.sweep import enqueue_sweep
from dynlora.store import queries
from dynlora.text import metric_words, plural, sentence_case
from dynlora.viz.ui import cached_queries
from dynlora.viz.ui.cards import DOT, dot_column, in_row, safe, with_dots
from dynlora.viz.ui.live import announce, refusal
from dynlora.viz.ui.run_picker import Chosen, is_read_only, runs_dir

Made = TypeVar("Made")

MODES: Any = ("multi-row", "single-cell")
"""What can be picked in the table of runs: rows by their box, and one cell, which stands for its row."""


def wake() -> None:
    """Restart a stalled queue, unless the page may only look."""
    if not is_read_only():
        launch.wake(runs_dir())


@dataclass(frozen=True)
class Picked:
    """What was picked in the table of runs.

    Attributes:
        ticked: ids of the ticked runs.
        looked_at: id of the run to show beside the table: the one that is ticked alone, else that of the clicked row;
            None for none.
    """

    ticked: list[str]
    looked_at: str | None


def runs_grid(table: pd.DataFrame) -> Picked:
    """Draw the table of runs and return what is picked in it; a click on a name opens the run.

    A tick and a click are positions, so another set or order of runs gets another table, with the same runs ticked:
    none ever slips to a neighbour, and no tick is lost when a run appears.
    """
    ids = table["id"].tolist()
    key = f"runs-{hashlib.sha256(''.join(ids).encode()).hexdigest()[:12]}"
    known, start = st.session_state.get("grid", ("", []))
    if known != key:
        ticked = st.session_state.get("ticked", ())
        start = [row for row, run_id in enumerate(ids) if run_id in ticked]
        st.session_state["grid"] = (key, start)
    table.insert(1, "tab", [f"run?run={run_id}" for run_id in ids])
    dots = table.pop("colour").tolist()
    state = st.dataframe(
        with_dots(table, dots),
        key=key,
        hide_index=True,
        width="stretch",
        on_select="rerun",
        selection_mode=MODES,
        selection_default={"selection": {"rows": start}},
        column_config=_columns(f"open-{key}", result_title(table)),
        height=min(38 + 35 * max(len(table), 2), 560),
        placeholder="",
        column_order=[DOT, *_used(table)],
    )
    opened = st.session_state.get(f"open-{key}")
    if opened is not None and opened["row"] < len(ids):
        st.switch_page("pages/run.py", query_params={"run": ids[opened["row"]]})
    picked: Mapping[str, Any] = state["selection"]  # pyright: ignore[reportIndexIssue, reportGeneralTypeIssues]
    ticked = [ids[row] for row in picked["rows"] if row < len(ids)]
    clicked = [ids[cell[0]] for cell in picked.get("cells", ()) if cell[0] < len(ids)]
    st.session_state["ticked"] = ticked
    return Picked(ticked, ticked[0] if len(ticked) == 1 else next(iter(() if ticked else clicked), None))


def _used(table: pd.DataFrame) -> list[str]:
    """Return the columns that say something: no tags and notes while nobody wrote any, nothing that all rows share."""
    empty = [name for name in ("tags", "note") if not table[name].map(len).sum()]
    alike = [name for name in ("model", "data", "where") if len(table) > 1 and table[name].nunique() == 1]
    named = ["metric"] if len(_metrics(table)) < 2 else []
    finished = ["progress"] if "progress" in table and table["progress"].isna().all() else []
    return [name for name in table.columns if name not in {*empty, *alike, *named, *finished}]


def _metrics(table: pd.DataFrame) -> list[str]:
    """Return the metrics that decide in the runs of a table, each once; those without an evaluation have none yet."""
    return [name for name in dict.fromkeys(table["metric"]) if name]


def result_title(table: pd.DataFrame) -> str:
    """Return the title of the column of results: the metric where all share one; else each is beside its value."""
    names = _metrics(table)
    return sentence_case(metric_words(names[0])) if len(names) == 1 else "Result"


def _columns(opened: str, result: str) -> dict[str, Any]:
    """Return how the columns of the table are drawn.

    Args:
        opened: key under which a click on a name is kept.
        result: title of the column of results.
    """
    column = st.column_config
    return {
        DOT: dot_column("The colour of the run's method, as in the charts of Compare.", pinned=True),
        "name": column.ButtonColumn(
            "Name",
            pinned=True,
            width=270,
            type="tertiary",
            alignment="left",
            key=opened,
            help="Click a name to open the run. Tick rows to compare, export, tag or delete them.",
        ),
        "tab": column.LinkColumn(
            "", width=40, display_text=":material/open_in_new:", help="Open the run in a new tab."
        ),
        "progress": column.ProgressColumn("Progress", format="%d %%", min_value=0, max_value=100, width="small"),
        "trend": column.LineChartColumn(
            "Trend", width="small", help="The last evaluations. Before the second evaluation: the training loss."
        ),
        "result": column.NumberColumn(safe(result), format="%.3f", help="The deciding metric at the last evaluation."),
        "tags": column.ListColumn("Tags", width="medium"),
        "seed": column.NumberColumn("Seed", format="%d", width=60),
        "of budget": column.NumberColumn("Budget (%)", format="%.1f", width="small", help="Budget used."),
        "adapter parameters": column.NumberColumn("Parameters", format="localized", help="Adapter parameters in use."),
        "created": column.DatetimeColumn("Created", format="YYYY-MM-DD HH:mm", width=140),
        "note": column.TextColumn("Note", width="medium"),
        **{
            name: column.TextColumn(name.capitalize())
            for name in ("status", "metric", "strategy", "model", "data", "where")
        },
    }


def unreadable(runs: pd.DataFrame) -> None:
    """Say which runs cannot be read, and why."""
    broken = runs[runs["status"] == "corrupt"]
    if len(broken):
        with st.expander(f"{len(broken)} unreadable", icon=":material/broken_image:"):
            st.caption(
                "They are not changed. Delete moves them to the trash. A newer version of dynlora may read them."
            )
            st.dataframe(broken[["id", "reason"]], hide_index=True, width="stretch")


def delete_button(run_ids: Sequence[str]) -> None:
    """Draw the button that moves runs to the trash, with one question."""
    if is_read_only():
        return
    label = "Delete" if len(run_ids) == 1 else f"Delete {len(run_ids)} runs"
    with st.popover(label, icon=":material/delete:"):
        st.caption("Moves the runs to the trash of the runs folder. They can be restored.")
        if st.button("Move to trash", key="delete", type="primary"):
            done = f"Moved to the trash: {plural(len(run_ids), 'run')}"
            _each(lambda run_id: launch.delete(runs_dir(), run_id), run_ids, lambda _: done)


def trash() -> None:
    """List the trash with a way back for each run."""
    trashed = launch.trashed(runs_dir())
    if trashed and not is_read_only():
        with st.expander(f"Trash ({len(trashed)})", icon=":material/delete:"):
            chosen = st.multiselect("Runs in the trash", trashed, key="trash")
            if chosen and st.button("Restore", key="restore"):
                done = f"Restored: {plural(len(chosen), 'run')}"
                _each(lambda run_id: launch.restore(runs_dir(), run_id), chosen, lambda _: done)


def run_buttons(run: Chosen, status: str) -> None:
    """Draw stop or resume, whichever the run's status allows; samples are read-only."""
    if not run.is_own or is_read_only():
        st.caption("Read-only", width="content")
    elif status == "stopping":
        _end_now_button(run)
    elif status in ("queued", "running"):
        if st.button("Stop", icon=":material/stop:", key="stop"):
            _each(lambda run_id: launch.stop(runs_dir(), run_id), [run.id], _stopped)
    elif status in ("stopped", "failed", "interrupted") and st.button(
        "Resume", icon=":material/play_arrow:", key="resume", type="primary"
    ):
        _each(lambda run_id: launch.resume(runs_dir(), run_id), [run.id], lambda _: queued_words(1))


def _end_now_button(run: Chosen) -> None:
    """Draw the button that ends a run at once, and what is lost by it."""
    summary = cached_queries.ask(queries.run_summary, run.folder)
    checkpoint = summary.checkpoint_step or 0
    lost = max(0, summary.step - checkpoint)
    with st.popover("End now", icon=":material/dangerous:"):
        st.caption(
            "The run finishes its step and saves its state; this takes a moment after an evaluation. Ending it now "
            f"loses the {plural(lost, 'step')} since the checkpoint of step {checkpoint}."
        )
        if st.button("End now", key="end-now", type="primary"):
            _each(lambda run_id: launch.end_now(runs_dir(), run_id), [run.id], lambda _: "The run was ended")


def _stopped(status: object) -> str:
    """Return what a stop did, by the status right after it."""
    if status == "stopped":
        return "The run left the queue"
    return "Stopping: the run finishes its step and saves its state"


def queued_words(runs: int) -> str:
    """Return that runs were put into the queue, and how many others are before them."""
    training, waiting = in_queue(runs_dir())
    before = max(0, training + waiting - runs)
    place = f", {plural(before, 'run')} before" if before else ""
    return f"Queued: {plural(runs, 'run')}{place}"


def _each(action: Callable[[str], object], run_ids: Sequence[str], words: Callable[[object], str]) -> None:
    """Do something to each run and draw the page again; an error is shown as its message.

    Args:
        action: what is done.
        run_ids: the runs.
        words: says what was done, from what the action returned of the last run.
    """
    done: object = None
    try:
        for run_id in run_ids:
            done = action(run_id)
    except (DynloraError, OSError) as error:
        st.error(refusal(error))
    else:
        announce(words(done))
        st.rerun()


def start_once(config: Mapping[str, Any], key: str) -> RunHandle | None:
    """Queue a training and return it; None where it is refused, which the page then says.

    Args:
        config: the configuration as plain values.
        key: of the button; a press before the page is refreshed queues nothing more.
    """
    with st.spinner("Checking the configuration"):
        return queued_once(key, config, lambda launched: start(config, runs_dir(), key=launched))


def sweep_once(
    sweeps: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]], key: str, doing: str = "Checking the configurations"
) -> list[str] | None:
    """Queue sweeps and return the ids of all their runs; None where one is refused, which the page then says.

    Args:
        sweeps: each as its configuration and the values that vary, as `jobs.sweep.enqueue_sweep` takes them.
        key: of the button; a press before the page is refreshed queues nothing more.
        doing: what is said meanwhile.
    """

    def queue(launched: str) -> list[str]:
        parts = [(sweep, f"{launched}-{place}") for place, sweep in enumerate(sweeps)]
        return [run for sweep, part in parts for run in enqueue_sweep(*sweep, runs_dir(), key=part)]

    with st.spinner(doing):
        return queued_once(key, {"sweeps": sweeps}, queue)


def queued_once(key: str, settings: Mapping[str, Any], queue: Callable[[str], Made]) -> Made | None:
    """Queue something and return it; None where it is refused, which the page then says.

    Args:
        key: of the button; a press before the page is refreshed queues nothing more.
        settings: of it as plain values.
        queue: puts it into the queue under an idempotency key.
    """
    token = st.session_state.setdefault(f"{key}-token", secrets.token_hex(8))
    try:
        made = queue(launch_key(token, dict(settings)))
    except (DynloraError, OSError) as error:
        st.error(refusal(error))
        return None
    st.session_state.pop(f"{key}-token", None)
    return made


BUTTONS = (
    ("first", "Start next", ":material/vertical_align_top:"),
    ("up", "Move up", ":material/arrow_upward:"),
    ("down", "Move down", ":material/arrow_downward:"),
)
"""The moves that pages offer: what `queue.move` takes, what the button says, its icon."""


def waiting_runs() -> list[str]:
    """Return the ids of the runs that wait in the queue, the next one first."""
    return run_queue.in_line(runs_dir())


def move_buttons(run_id: str, key: str, line: list[str] | None = None) -> None:
    """Draw the buttons that move a run within the queue; none where it is alone in it, or where pages only look.

    Args:
        run_id: the run.
        key: of the buttons.
        line: ids of the runs that wait, in their order; None looks.
    """
    line = waiting_runs() if line is None else line
    if run_id not in line or len(line) < 2 or is_read_only():
        return
    place = line.index(run_id)
    with in_row(f"{key}-moves", "top", gap="xxsmall", width="content"):
        for where, words, icon in BUTTONS:
            at_end = place == (len(line) - 1 if where == "down" else 0)
            if st.button("", icon=icon, key=f"{key}-{where}", help=words, disabled=at_end, type="tertiary"):
                _move(run_id, where)


def _move(run_id: str, where: str) -> None:
    try:
        position, waiting = run_queue.move(runs_dir(), run_id, where)
    except (DynloraError, OSError) as error:
        st.error(refusal(error))
    else:
        announce(f"Position {position} of {waiting} in the queue", ":material/low_priority:")
        st.rerun()
