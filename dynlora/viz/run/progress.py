"""How far a run has come and how long it still needs, judged by its present process alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from dynlora.viz.kit.run_summary import format_progress, interim_rows
from dynlora.viz.kit.text import duration


def evaluation_s(events: pd.DataFrame, times: pd.DataFrame, resumed_at: int) -> tuple[float, int] | None:
    """Return (seconds an evaluation takes, steps between two), from the last two of this process; None when unknown.

    The store holds the time of each evaluation and the milliseconds of each step, so an evaluation took the time
    between two of them minus their steps.

    Args:
        events: with kinds `evaluate`, columns step, kind, time.
        times: columns step and step_ms, perhaps thinned.
        resumed_at: step at which this process began.
    """
    found = events[(events["kind"] == "evaluate") & (events["step"] > resumed_at)].drop_duplicates("step").tail(2)
    if len(found) < 2:
        return None
    (first, last), seconds = found["step"], float(found["time"].iloc[1] - found["time"].iloc[0])
    between = times.loc[(times["step"] > first) & (times["step"] <= last), "step_ms"]
    if between.empty:
        return None
    return max(0.0, seconds - float(between.mean()) * (last - first) / 1000), int(last - first)


def remaining_s(summary: Mapping[str, Any], times: pd.DataFrame, events: pd.DataFrame, resumed_at: int) -> float | None:
    """Return the seconds a running run still needs, steps and evaluations; None before this process made a step."""
    recent = times[times["step"] > resumed_at].tail(50)
    if summary["status"] not in ("running", "stopping") or recent.empty:
        return None
    steps = max(0, summary["max_steps"] - summary["step"])
    seconds = float(recent["step_ms"].median()) * steps / 1000
    evaluation = evaluation_s(events, times, resumed_at)
    if evaluation is None:
        return seconds
    rows, of = interim_rows(summary) or (1, 1)
    return seconds + evaluation[0] * (-(-steps // evaluation[1]) - 1 + of / rows if steps else 0)


def words(summary: Mapping[str, Any], remaining: float | None, phase: str = "") -> str:
    """Return where a run stands; a running one without a step of its own yet says what it does meanwhile."""
    found = format_progress(summary, remaining)
    if summary["status"] == "running" and remaining is None:
        meanwhile = f": {phase}" if phase else ""
        return f"{found}{meanwhile}; the remaining time is known after the first step of this process"
    return found


def components_by_kind(ranks: pd.DataFrame, modules: pd.DataFrame) -> pd.DataFrame:
    """Return the components each kind of module holds: column step, then one per kind.

    Args:
        ranks: one row per module as recorded, one column per step.
        modules: as `capacity.described` returns them.
    """
    if len(ranks) != len(modules) or not ranks.shape[1]:
        return pd.DataFrame({"step": []})
    found = {"step": ranks.columns.to_numpy()}
    for label, part in modules.groupby("label", sort=False):
        found[str(label)] = ranks.to_numpy(float)[part["position"]].sum(axis=0)
    return pd.DataFrame(found)


def minutes(system: pd.DataFrame) -> pd.DataFrame:
    """Return readings of the machine as columns name, minutes (since the first), value."""
    start = system["time"].min() if len(system) else 0.0
    return pd.DataFrame({"name": system["name"], "minutes": (system["time"] - start) / 60, "value": system["value"]})


def machine_caption(readings: pd.DataFrame, names: Mapping[str, str], unit: str) -> str:
    """Say the last and the highest value of each reading."""
    parts = []
    for name, called in names.items():
        values = readings.loc[readings["name"] == name, "value"].dropna()
        if len(values):
            parts.append(f"{called} {values.iloc[-1]:,.0f} {unit} now, maximum {values.max():,.0f} {unit}")
    length = readings["minutes"].max() if len(readings) else 0.0
    if not parts:
        return "Not recorded in this run."
    words = "; ".join(parts)
    return f"{words[0].upper()}{words[1:]}, over {duration(60 * length)}."
