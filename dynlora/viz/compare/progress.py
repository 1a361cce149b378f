"""How far a set of runs has come: counts, the share of steps that is done, and the time that is left."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from dynlora.store.meta import finite
from dynlora.viz.kit.run_summary import ACTIVE
from dynlora.viz.kit.text import plural, rough_duration


@dataclass(frozen=True)
class Progress:
    """How far some runs have come.

    Attributes:
        n: runs in total.
        finished: runs that reached their last step.
        active: runs that are queued, running or stopping.
        queued: runs of these that wait.
        share: of all steps that are done, from 0 to 1.
        seconds_left: until the last run ends, one run at a time; None before a run of them has finished.
    """

    n: int
    finished: int
    active: int
    queued: int
    share: float
    seconds_left: float | None


def counted(rows: Sequence[Mapping[str, Any]]) -> Progress:
    """Return how far runs have come.

    Args:
        rows: of the list, as plain values.
    """
    states = [row["status"] for row in rows]
    active = [row for row in rows if row["status"] in ACTIVE]
    done, planned = sum(map(_done, rows)), sum(map(_planned, rows))
    pace = [seconds for row in rows if (seconds := _seconds_per_step(row)) is not None]
    left = sum(_planned(row) - _done(row) for row in active)
    return Progress(
        len(rows), states.count("finished"), len(active), states.count("queued"), done / planned if planned else 0.0,
        median(pace) * left if pace else None,
    )  # fmt: skip


def _planned(row: Mapping[str, Any]) -> int:
    return row["max_steps"] if isinstance(row.get("max_steps"), int) else 0


def _done(row: Mapping[str, Any]) -> int:
    step = row["step"] if isinstance(row.get("step"), int) else 0
    return min(step, _planned(row)) if row["status"] in ACTIVE else _planned(row)


def _seconds_per_step(row: Mapping[str, Any]) -> float | None:
    times, step = row.get("time") or {}, row.get("step")
    seconds = finite(times.get("train_s"))
    if row["status"] != "finished" or seconds is None or not isinstance(step, int) or step <= 0:
        return None
    return (seconds + (finite(times.get("evaluated_s")) or 0.0)) / step


def sentence(found: Progress) -> str:
    """Say how far the runs have come."""
    training, over = found.active - found.queued, found.n - found.finished - found.active
    parts = [f"{found.finished} of {plural(found.n, 'run')} finished"]
    parts += [f"{training} training"] if training else []
    parts += [f"{found.queued} in the queue"] if found.queued else []
    parts += [f"{over} ended early"] if over else []
    left = "" if found.seconds_left is None else f" About {rough_duration(found.seconds_left)} remaining."
    return f"{', '.join(parts)}.{left}"
