"""How far the runs that are compared have come, while some of them are queued or train."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from types import MappingProxyType
from typing import Any

import streamlit as st

from dynlora.analysis.run_summary import ACTIVE, seconds_taken
from dynlora.store import queries
from dynlora.text import plural, rough_duration
from dynlora.viz.runs.table import plain_rows
from dynlora.viz.ui import live, run_actions, run_picker
from dynlora.viz.ui.cards import card, note


@dataclass(frozen=True)
class Progress:
    """How far some runs have come.

    Attributes:
        n: runs in total.
        finished: runs that reached their last step.
        active: runs that are queued, running or stopping.
        queued: runs of these that wait.
        share: of all steps that are done, from 0 to 1.
        seconds_left: until the last run ends, one run at a time; None where nothing says how long a step takes here.
    """

    n: int
    finished: int
    active: int
    queued: int
    share: float
    seconds_left: float | None


def counted(rows: Sequence[Mapping[str, Any]], remaining: Mapping[str, float] = MappingProxyType({})) -> Progress:
    """Return how far runs have come.

    Args:
        rows: of the list, as plain values.
        remaining: seconds that runs which train say they still need, by id.
    """
    states = [row["status"] for row in rows]
    active = [row for row in rows if row["status"] in ACTIVE]
    done, planned = sum(map(_done, rows)), sum(map(_planned, rows))
    return Progress(
        n=len(rows),
        finished=states.count("finished"),
        active=len(active),
        queued=states.count("queued"),
        share=done / planned if planned else 0.0,
        seconds_left=_seconds_left(rows, active, remaining),
    )


def _seconds_left(
    rows: Sequence[Mapping[str, Any]], active: Sequence[Mapping[str, Any]], remaining: Mapping[str, float]
) -> float | None:
    """Return what the active runs still need: what they say, of the others their steps at the pace of this machine."""
    paces = [pace for row in rows if (pace := _seconds_per_step(row)) is not None]
    paces = paces or [remaining[row["id"]] / left for row in active if row["id"] in remaining and (left := _left(row))]
    others = sum(_left(row) for row in active if row["id"] not in remaining)
    if others and not paces:
        return None
    stated = sum(remaining.get(row["id"], 0.0) for row in active)
    return stated + (median(paces) * others if others else 0.0)


def _left(row: Mapping[str, Any]) -> int:
    return _planned(row) - _done(row)


def _planned(row: Mapping[str, Any]) -> int:
    return row["max_steps"] if isinstance(row.get("max_steps"), int) else 0


def _done(row: Mapping[str, Any]) -> int:
    step = row["step"] if isinstance(row.get("step"), int) else 0
    return min(step, _planned(row)) if row["status"] in ACTIVE else _planned(row)


def _seconds_per_step(row: Mapping[str, Any]) -> float | None:
    """Return the pace of a finished run; None of a sample, which another machine trained."""
    seconds, step = seconds_taken(row), row.get("step")
    if seconds is None or row["status"] != "finished" or not row.get("is_own", True):
        return None
    return seconds / step if isinstance(step, int) and step > 0 else None


def sentence(progress: Progress) -> str:
    """Say how far the runs have come."""
    training, over = progress.active - progress.queued, progress.n - progress.finished - progress.active
    parts = [f"{progress.finished} of {plural(progress.n, 'run')} finished"]
    parts += [f"{training} training"] if training else []
    parts += [f"{progress.queued} in the queue"] if progress.queued else []
    parts += [f"{over} ended early"] if over else []
    left = "" if progress.seconds_left is None else f" About {rough_duration(progress.seconds_left)} remaining."
    return f"{', '.join(parts)}.{left}"


def follow_progress(rows: Sequence[Mapping[str, Any]]) -> None:
    """Draw how many of the runs have finished, and draw the page again when one more has; nothing when all are over.

    Args:
        rows: of the list, for the runs that are compared.
    """
    drawn = counted(rows)
    if not drawn.active:
        return
    ids = [row["id"] for row in rows]

    @live.following(2, active=True)
    def show() -> None:
        run_actions.wake()
        runs = run_picker.list_all()
        now = plain_rows(runs[runs["id"].isin(ids)])
        progress = counted(now, _remaining(now))
        with card("Progress", "progress"):
            st.progress(progress.share, text=sentence(progress))
            note("The verdict and the charts below follow each run that finishes.")
        if (progress.finished, progress.active) != (drawn.finished, drawn.active):
            st.rerun()

    show()


def _remaining(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Return the seconds that the runs which train say they still need, by id."""
    training = [Path(row["folder"]) for row in rows if row["status"] in ("running", "stopping")]
    activities = {folder.name: queries.run_summary(folder)["activity"] or {} for folder in training}
    known = {run: activity.get("remaining_s") for run, activity in activities.items()}
    return {run: seconds for run, seconds in known.items() if seconds is not None}
