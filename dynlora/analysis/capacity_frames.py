"""What the Capacity page computes before it draws: rows in order, shares, agreement; pandas in, pandas out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from dynlora.analysis.stats import spearman

ORDERS = {"kind": "By kind", "depth": "By depth", "rank": "By rank"}
"""The orders of a map's rows, and what people call them."""


def module_state(modules: pd.DataFrame, ranks: np.ndarray, importance: np.ndarray | None) -> pd.DataFrame:
    """Return the modules with their rank and importance at one step, and the fraction of both, in percent.

    Args:
        modules: as `described` returns them.
        ranks: by module as recorded.
        importance: the same, or None when it was not recorded.
    """
    found = modules.copy()
    found["rank"] = ranks[found["position"]]
    found["importance"] = np.nan if importance is None else importance[found["position"]]
    for column in ("rank", "importance"):
        total = found[column].clip(lower=0).sum()
        found[f"{column}_share"] = 100 * found[column].clip(lower=0) / total if total > 0 else np.nan
    return found


def ordered(modules: pd.DataFrame, order: str, ranks: np.ndarray) -> pd.DataFrame:
    """Return the modules in the order of a map's rows, with columns `group` and `side`, the words beside them.

    Args:
        modules: as `described` returns them.
        order: `kind`, `depth` or `rank` (the widest first).
        ranks: by module as recorded, at the last step shown.
    """
    layer = ["" if pd.isna(value) else str(value) for value in modules["layer"]]
    if order == "kind":
        return modules.assign(group=modules["label"], side=layer)
    if order == "depth":
        found = modules.assign(group=[f"layer {value}" if value else "outside" for value in layer], side="")
        return found.sort_values(["layer", "position"], kind="stable").reset_index(drop=True)
    last = np.nan_to_num(ranks)[modules["position"]].astype(int)
    found = modules.assign(group=[f"rank {value}" for value in last], side="", last=last)
    return found.sort_values("last", ascending=False, kind="stable").drop(columns="last").reset_index(drop=True)


def steadiness(importance: pd.DataFrame, events: Sequence[int]) -> pd.DataFrame:
    """Return how well the order of importance agrees from one reallocation to the next: columns step and value.

    The value is Spearman's correlation over the modules, between an event and the one before it.

    Args:
        importance: one row per module, one column per recorded step (or bin, by its last step).
        events: steps of the reallocations.
    """
    steps = importance.columns.to_numpy(dtype=int) if importance.shape[1] else np.empty(0, int)
    places = [int(np.searchsorted(steps, event, side="right")) - 1 for event in events]
    known = [(event, place) for event, place in zip(events, places, strict=True) if place >= 0]
    columns = [place for _, place in known]
    values = importance.to_numpy(float)[:, columns]
    if np.isfinite(values).all():
        order = rankdata(values, axis=0)
        rows = [(later, _agreement(order[:, i], order[:, i + 1])) for i, (later, _) in enumerate(known[1:])]
    else:
        rows = [(later, spearman(values[:, i], values[:, i + 1])) for i, (later, _) in enumerate(known[1:])]
    rows = [row for row, before, after in zip(rows, columns, columns[1:], strict=False) if before != after]
    return pd.DataFrame(rows, columns=["step", "value"]).dropna().reset_index(drop=True)


def _agreement(before: np.ndarray, after: np.ndarray) -> float:
    """Return the correlation of two columns of ranks, NaN when one does not vary."""
    before, after = before - before.mean(), after - after.mean()
    size = float(np.sqrt((before @ before) * (after @ after)))
    return float(before @ after) / size if size and len(before) > 2 else float("nan")


def event_steps(events: pd.DataFrame) -> list[int]:
    """Return the steps of the reallocations that moved something."""
    return [int(step) for step, payload in zip(events["step"], events["payload"], strict=True) if payload.get("edits")]


def reallocations(events: pd.DataFrame, step: int | None = None) -> int:
    """Return how many reallocations moved something, up to a step."""
    return sum(step is None or event <= step for event in event_steps(events))


def wide(values: pd.DataFrame, modules: pd.DataFrame) -> pd.DataFrame:
    """Return a map's values as a table: column `step`, then one per module by its name."""
    found = pd.DataFrame(values.to_numpy(float).T, columns=modules.sort_values("position")["name"].tolist())
    found.insert(0, "step", values.columns.to_numpy(), allow_duplicates=True)
    return found


def state_table(state: pd.DataFrame) -> pd.DataFrame:
    """Return the state of the modules as a table that people read."""
    found = state[["short", "name", "rank", "rank_share", "importance", "importance_share"]]
    return found.rename(
        columns={"short": "module", "rank_share": "rank (% of total)", "importance_share": "importance (% of total)"}
    )


def one_module(values: pd.DataFrame, modules: pd.DataFrame, name: str) -> pd.DataFrame:
    """Return one module's row of a map as columns step and value."""
    position = int(modules.loc[modules["name"] == name, "position"].iloc[0])
    return pd.DataFrame({"step": values.columns.to_numpy(), "value": values.to_numpy(float)[position]}).dropna()
