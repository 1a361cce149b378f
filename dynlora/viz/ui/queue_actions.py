"""Moving a waiting run within the queue from a page."""

from __future__ import annotations

import streamlit as st

from dynlora.errors import DynloraError
from dynlora.jobs import queue
from dynlora.viz.ui.guard import refusal
from dynlora.viz.ui.run_picker import is_read_only, runs_dir
from dynlora.viz.ui.toasts import announce

BUTTONS = (
    ("first", "Start next", ":material/vertical_align_top:"),
    ("up", "Move up", ":material/arrow_upward:"),
    ("down", "Move down", ":material/arrow_downward:"),
)
"""The moves that pages offer: what `queue.move` takes, what the button says, its icon."""


def waiting_runs() -> list[str]:
    """Return the ids of the runs that wait in the queue, the next one first."""
    return queue.in_line(runs_dir())


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
    with st.container(horizontal=True, gap="xxsmall", key=f"{key}-moves", width="content"):
        for where, words, icon in BUTTONS:
            at_end = place == (len(line) - 1 if where == "down" else 0)
            if st.button("", icon=icon, key=f"{key}-{where}", help=words, disabled=at_end, type="tertiary"):
                _move(run_id, where)


def _move(run_id: str, where: str) -> None:
    try:
        position, waiting = queue.move(runs_dir(), run_id, where)
    except (DynloraError, OSError) as error:
        st.error(refusal(error))
    else:
        announce(f"Position {position} of {waiting} in the queue", ":material/low_priority:")
        st.rerun()
