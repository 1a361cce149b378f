"""What frames give, under the types it has: pandas-stubs know no more of a column's name or an index than Hashable."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import pandas as pd

from dynlora.text import kind_labels


def records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the rows of a frame whose columns are named by text."""
    return cast("list[dict[str, Any]]", frame.to_dict("records"))


def at_highest(values: pd.Series) -> Any:
    """Return where in its index a series is highest, for `loc`; the first of equals, and of gaps alone the first."""
    return values.index[0] if values.isna().all() else values.idxmax()


def at_lowest(values: pd.Series) -> Any:
    """Return where in its index a series is lowest, for `loc`; the first of equals, and of gaps alone the first."""
    return values.index[0] if values.isna().all() else values.idxmin()


SMOOTHING = {"none": 0.0, "usual": 1 / 15, "strong": 1 / 5}
"""How much of a line an exponential mean covers, by name."""


def smoothed(values: pd.Series, smoothing: str = "usual") -> pd.Series:
    """Return an exponential mean over a fraction of the points, at least three of them; see `SMOOTHING`."""
    share = SMOOTHING[smoothing]
    return values.ewm(span=max(3, len(values) * share), ignore_na=True).mean() if share else values


ROUNDED = 2e-6
"""What a rounded number of single precision may lack to it."""

MOST_PLACES, SMALL = 4, 0.01
"""Most decimal places of a column, and the size below which a column shows significant digits instead."""


def number_format(values: pd.Series) -> str:
    """Return the one format of a column of numbers: whole with thousands apart, else with equally many places."""
    known = values.to_numpy(float, na_value=np.nan)
    known = known[np.isfinite(known)]
    if not (known % 1).any():
        return "localized"
    if np.median(np.abs(known[known != 0])) < SMALL:
        return "%.3g"
    places = next(
        (n for n in range(1, MOST_PLACES) if np.allclose(known, known.round(n), rtol=0, atol=ROUNDED)), MOST_PLACES
    )
    return f"%.{places}f"


_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n")


def csv_text(frame: pd.DataFrame) -> str:
    """Return a frame as CSV; text that would start a formula gets a leading apostrophe, numbers stay."""
    safe = pd.DataFrame({position: frame.iloc[:, position].map(_plain) for position in range(frame.shape[1])})
    safe.columns = pd.Index([_plain(column) for column in frame.columns])
    return safe.to_csv(index=False)


def _plain(value: object) -> object:
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA_STARTS) else value


def described(modules: pd.DataFrame) -> pd.DataFrame:
    """Return the modules, by kind and then depth, with what pages show of them.

    Added columns: position (as recorded), label (short word of the kind), short (label and layer), cost (parameters of
    one component).
    """
    frame = modules.reset_index(drop=True)
    labels = kind_labels(frame["kind"])
    frame = frame.assign(
        position=np.arange(len(frame)),
        label=frame["kind"].map(labels),
        cost=frame["d_in"] + frame["d_out"],
        turn=frame["kind"].map({kind: i for i, kind in enumerate(labels)}),
    )
    frame["short"] = [
        label if pd.isna(layer) else f"{label} {layer}"
        for label, layer in zip(frame["label"], frame["layer"], strict=True)
    ]
    return frame.sort_values(["turn", "layer", "position"], kind="stable").drop(columns="turn").reset_index(drop=True)


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
    window = series[(series["step"] >= low) & (series["step"] <= high)]
    used = window["value"].to_numpy(float)
    share = used / budget if budget else np.full(len(used), np.nan)
    return pd.DataFrame({"step": window["step"].to_numpy(), "parameters": used, "share": share})


def parameters(line: pd.DataFrame) -> pd.DataFrame:
    """Return a budget line as columns step and value, in parameters."""
    return line.rename(columns={"parameters": "value"})[["step", "value"]]
