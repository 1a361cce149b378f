"""What the Capacity page shows of a run, in a sentence: what moved, where to, and whether rank follows importance."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from dynlora.analysis.flows import Balance
from dynlora.analysis.run_summary import ACTIVE
from dynlora.analysis.stats import spearman
from dynlora.text import listed, minus, number, one_line, percent, plural


def conclusion(
    state: pd.DataFrame, start: np.ndarray, traced: pd.DataFrame, sides: Balance, first: int, last: int, events: int
) -> str:
    """Say what moved between two steps, and how rank and importance agree.

    Args:
        state: of the modules at the last step, as `model.module_state` returns it.
        start: their ranks at the first step, as recorded.
        traced: what moved, as `flows.trace` returns it.
        sides: as `flows.balance` returns it.
        first: first step.
        last: last step.
        events: reallocations between them.
    """
    moved = float(traced.loc[(traced["origin"] != traced["holder"]) & (traced["holder"] >= 0), "parameters"].sum())
    if last <= first:
        return f"Step {last:,}, nothing has moved yet: {ranks_of(state)}."
    steps, counted = f"In steps {first:,} to {last:,}", plural(events, "reallocation")
    changed = int((state["rank"] != start[state["position"]]).sum())
    if not moved and not sides.released and changed:  # of a run that was imported, without the sizes of its modules
        who = f"{changed} of {plural(len(state), 'module')}"
        return f"{steps}, {who} changed rank{_kinds(state, start)}{_followed(state)}."
    if not moved and not sides.released:
        during = f" in {counted}" if events else ""
        return f"{steps}, no rank moved{during}: {ranks_of(state)}."
    amounts = [f"moved {number(round(moved))} parameters ({percent(_share(moved, sides.held_after))} of those in use)"]
    if sides.released:
        amounts.append(f"released {number(round(sides.released))}")
    who = counted if events else "changes of rank"
    return f"{steps}, {who} {listed(amounts)}{_kinds(state, start)}{_followed(state)}."


def _share(part: float, whole: float) -> float | None:
    return part / whole if whole else None


def _kinds(state: pd.DataFrame, start: np.ndarray) -> str:
    """Say which kinds of modules have more rank than before and which have less, after a colon."""
    change = (state["rank"] - start[state["position"]]).groupby(state["label"]).sum()
    order = change.sort_values(kind="stable")
    won, lost = order[order > 0][::-1], order[order < 0]
    parts = [f"{_names(won)} gained rank"] if len(won) else []
    parts += [f"{_names(lost)} lost rank"] if len(lost) else []
    return f": {', '.join(parts)}" if parts else ": every kind of module has as much rank as before"


def _names(kinds: pd.Series) -> str:
    return listed([one_line(name, 24) for name in kinds.index], 3)


def _followed(state: pd.DataFrame) -> str:
    """Say how rank and importance agree over the modules, after a semicolon; empty where that is undefined."""
    known = state.dropna(subset=["importance_share", "rank_share"])
    rho = spearman(known["importance_share"], known["rank_share"])
    if not np.isfinite(rho):
        return ""
    return f"; rank and importance correlate with {minus(f'{rho:.2f}')} (Spearman, n = {len(known)} modules)"


def ranks_of(state: pd.DataFrame) -> str:
    """Return which ranks the modules have, in words."""
    low, high, n = int(state["rank"].min()), int(state["rank"].max()), plural(len(state), "module")
    return f"{n} with rank {low}" if low == high else f"{n} with ranks from {low} to {high}"


def outlook(summary: Mapping[str, Any], events: int) -> str:
    """Say what comes next in this run, or what its capacity does not say."""
    planned, step = summary.get("planned_events"), summary["step"]
    if summary["status"] in ACTIVE:
        left = f" {plural(planned, 'reallocation')} planned, {events} done." if isinstance(planned, int) else ""
        return f"Step {step:,} of {summary['max_steps']:,}.{left} This page follows the run."
    return "Capacity alone does not show whether moving rank helped: the verdict on Run does, against plain LoRA."
