"""What a run says of its modules: names, budget, parameters."""

from __future__ import annotations

import numpy as np
import pandas as pd

from dynlora.text import kind_labels


def described(modules: pd.DataFrame) -> pd.DataFrame:
    """Return the modules, by kind and then depth, with what pages show of them.

    Added columns: position (as recorded), label (short word of the kind), short (label and layer), cost (parameters of
    one component).
    """
    found = modules.reset_index(drop=True)
    labels = kind_labels(found["kind"])
    found = found.assign(
        position=np.arange(len(found)),
        label=found["kind"].map(labels),
        cost=found["d_in"] + found["d_out"],
        turn=found["kind"].map({kind: i for i, kind in enumerate(labels)}),
    )
    found["short"] = [
        label if pd.isna(layer) else f"{label} {layer}"
        for label, layer in zip(found["label"], found["layer"], strict=True)
    ]
    return found.sort_values(["turn", "layer", "position"], kind="stable").drop(columns="turn").reset_index(drop=True)


def budget_line(ranks: pd.DataFrame, modules: pd.DataFrame, gates: int, budget: int | None) -> pd.DataFrame:
    """Return the fraction of the budget in use by step: columns step, parameters, share.

    Args:
        ranks: one row per module as recorded, one column per step.
        modules: as `described` returns them.
        gates: parameters of the gates.
        budget: the limit, in parameters; None leaves the fraction empty.
    """
    if not ranks.shape[1]:
        return pd.DataFrame({"step": [], "parameters": [], "share": []})
    cost = modules.sort_values("position")["cost"].to_numpy(float)
    used = ranks.to_numpy(float).T @ cost + gates if len(cost) == len(ranks) else np.full(ranks.shape[1], np.nan)
    share = used / budget if budget else np.full(len(used), np.nan)
    return pd.DataFrame({"step": ranks.columns.to_numpy(), "parameters": used, "share": share})


def recorded_line(series: pd.DataFrame, budget: int | None, first: int | None, last: int | None) -> pd.DataFrame:
    """Return a budget line, as `budget_line` does, from the recorded parameters in use, columns step and value.

    Args:
        series: the recorded numbers.
        budget: the limit, in parameters; None leaves the fraction empty.
        first: of the steps shown; None for the run's.
        last: of the steps shown; None for the run's.
    """
    low, high = (0 if first is None else first), (np.inf if last is None else last)
    shown = series[(series["step"] >= low) & (series["step"] <= high)]
    used = shown["value"].to_numpy(float)
    share = used / budget if budget else np.full(len(used), np.nan)
    return pd.DataFrame({"step": shown["step"].to_numpy(), "parameters": used, "share": share})


def parameters(line: pd.DataFrame) -> pd.DataFrame:
    """Return a budget line as columns step and value, in parameters."""
    return line.rename(columns={"parameters": "value"})[["step", "value"]]
