"""What the first page shows of the list of runs: what runs now, what ended last, and which old links it passes on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

from dynlora.analysis.frames import records
from dynlora.analysis.run_summary import ACTIVE, STATUS_WORDS, about, format_progress, main_metric
from dynlora.text import duration, one_line, score

LIST_KEYS = ("q", "status", "strategy", "sort", "group")
"""What the address of the list of runs holds; the list was the first page once, so links of then lead to it."""

MOST_ACTIVE = 4
"""Runs that are shown as running or queued."""

MOST_RECENT = 5
"""Runs that are shown as ended last."""


def is_link_to_list(names: Iterable[str]) -> bool:
    """Say whether the names of an address' values are those of the list of runs."""
    return not set(LIST_KEYS).isdisjoint(names)


def active(runs: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the runs that can change by themselves, running ones before queued ones, the newest first.

    Args:
        runs: as `queries.list_runs` returns them.
    """
    rows = records(runs[runs["status"].isin(ACTIVE)].sort_values("created", ascending=False, kind="stable"))
    return sorted(rows, key=lambda row: row["status"] == "queued")


def recent(runs: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the last own runs that do not run, the newest first; those that cannot be read are left out.

    Args:
        runs: as `run_picker.list_all` returns them.
    """
    ended = runs[runs["is_own"] & ~runs["status"].isin([*ACTIVE, "corrupt"])]
    return records(ended.sort_values("created", ascending=False, kind="stable").head(MOST_RECENT))


def live_run(runs: pd.DataFrame) -> str | None:
    """Return the id of the newest run that trains and has made a step, else None."""
    training = [row for row in active(runs) if row["status"] != "queued" and (row["step"] or 0) > 0]
    return training[0]["id"] if training else None


def result_words(row: Mapping[str, Any], now: float) -> str:
    """Return how a run ended, in words: status, deciding metric and when it was created.

    Args:
        row: of the list of runs.
        now: seconds since the epoch.
    """
    name, value = main_metric(row)
    status = str(STATUS_WORDS.get(row["status"], row["status"]))
    known = [status] if value is None else [status, f"{one_line(name, 30)} {score(value)}"]
    return ", ".join([*known, *_age(row.get("created"), now)])


def _age(created: Any, now: float) -> list[str]:
    """Return how long ago a run was created, in its larger unit; nothing when that is not known."""
    if not isinstance(created, int | float) or not 0 < created <= now:
        return []
    days = int((now - created) // 86_400)
    if days:
        return [f"created {days} {'day' if days == 1 else 'days'} ago"]
    return [f"created {_larger(duration(now - created))} ago"]


def _larger(length: str) -> str:
    """Return the first number and unit of a length of time."""
    return " ".join(length.split()[:2])


TITLE = "dynlora trains LoRA adapters, moves rank to the modules that need it, and shows every step."
"""What dynlora is, in one sentence."""

PLACE = "Data, models and runs stay on this machine."

TOUR = "New here? The tour explains rank, importance and gates on a finished run, in six short stops."


def picture_title(summary: Mapping[str, Any], *, is_live: bool) -> str:
    """Return the title of the picture: which run it is, and how far one that trains has come.

    Args:
        summary: as `queries.run_summary` returns it.
        is_live: whether the run trains now.
    """
    name = one_line(summary["name"], 60)
    return f"Training now: {name}, {format_progress(summary)}" if is_live else f"Rank over training: {name}"


def picture_words(summary: Mapping[str, Any], caption: str) -> str:
    """Return what is under the picture.

    Args:
        summary: as `queries.run_summary` returns it.
        caption: what the picture shows, computed.
    """
    return f"{about(summary)}. {caption}"
