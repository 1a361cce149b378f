"""What the Capacity page computes before it draws: rows in order, shares, flows; pandas in, pandas out."""

# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false, reportGeneralTypeIssues=false, reportReturnType=false
# (pandas comes without types: a column is taken for a frame and a frame for a column)
from __future__ import annotations

import numpy as np
import pandas as pd

from dynlora.viz.labels import kind_labels

RELEASED = "released"
"""Where capacity goes that no module receives."""

FREE = "free"
"""Where capacity comes from that no module gave."""


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
    """Return the share of the budget in use by step: columns step, parameters, share.

    Args:
        ranks: one row per module as recorded, one column per step.
        modules: as `described` returns them.
        gates: parameters of the gates.
        budget: the limit, in parameters; None leaves the share empty.
    """
    if not ranks.shape[1]:
        return pd.DataFrame({"step": [], "parameters": [], "share": []})
    cost = modules.sort_values("position")["cost"].to_numpy(float)
    used = ranks.to_numpy(float).T @ cost + gates if len(cost) == len(ranks) else np.full(ranks.shape[1], np.nan)
    share = used / budget if budget else np.full(len(used), np.nan)
    return pd.DataFrame({"step": ranks.columns.to_numpy(), "parameters": used, "share": share})


def parameters(line: pd.DataFrame) -> pd.DataFrame:
    """Return a budget line as columns step and value, in parameters."""
    return line.rename(columns={"parameters": "value"})[["step", "value"]]


def module_state(modules: pd.DataFrame, ranks: np.ndarray, importance: np.ndarray | None) -> pd.DataFrame:
    """Return the modules with their rank and importance at one step, and the share of both, in percent.

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


def flows(modules: pd.DataFrame, moves: pd.DataFrame, start: np.ndarray, end: np.ndarray) -> pd.DataFrame:
    """Return who gave to whom by kind, in parameters: columns source, target, parameters, components, kept.

    What donors gave beyond the price of what was received goes to `RELEASED`, so that both sides add up.

    Args:
        modules: as `described` returns them.
        moves: as `queries.rank_moves` returns them, up to the step of interest.
        start: ranks by module as recorded, at the first step.
        end: the same at the step of interest.
    """
    cost, label = modules.set_index("name")["cost"], modules.set_index("name")["label"]
    rows = moves.assign(
        source=moves["donor"].map(label).fillna(FREE),
        target=moves["receiver"].map(label).fillna(RELEASED),
        components=moves["count"].fillna(1).astype(int),
    )
    price = rows["donor"].map(cost).fillna(rows["receiver"].map(cost)).fillna(0)
    rows["parameters"] = price.to_numpy(float) * rows["components"]
    moved = rows.groupby(["source", "target"], sort=False, as_index=False)[["parameters", "components"]].sum()
    return _balanced(moved, _by_kind(modules, start), _by_kind(modules, end))


def _by_kind(modules: pd.DataFrame, ranks: np.ndarray) -> pd.Series:
    held = modules.assign(held=ranks[modules["position"]] * modules["cost"])
    return held.groupby("label", sort=False)["held"].sum()


def _balanced(moved: pd.DataFrame, start: pd.Series, end: pd.Series) -> pd.DataFrame:
    """Add what each kind kept, and send what was given beyond the receivers' price to `RELEASED`."""
    given = moved.groupby("source")["parameters"].sum().reindex(start.index, fill_value=0.0)
    kept = (start - given).clip(lower=0)
    arrived = moved.groupby("target")["parameters"].sum().reindex(end.index, fill_value=0.0)
    received = (end - kept).clip(lower=0)
    fit = (received / arrived.where(arrived > 0)).clip(upper=1).fillna(1.0)
    share = moved["target"].map(fit).astype(float).fillna(1.0)
    rest = moved.assign(parameters=moved["parameters"] * (1 - share), target=RELEASED, components=0)
    moved = moved.assign(parameters=moved["parameters"] * share)
    parts = [moved.assign(kept=False), rest[rest["parameters"] > 0.5].assign(kept=False)]
    stays = pd.DataFrame({"source": kept.index, "target": kept.index, "parameters": kept.to_numpy(float)})
    parts.append(stays[stays["parameters"] > 0].assign(components=0, kept=True))
    whole = pd.concat(parts, ignore_index=True)
    return whole.groupby(["source", "target", "kept"], sort=False, as_index=False)[["parameters", "components"]].sum()


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
        columns={"short": "module", "rank_share": "share of rank, %", "importance_share": "share of importance, %"}
    )


def one_module(values: pd.DataFrame, modules: pd.DataFrame, name: str) -> pd.DataFrame:
    """Return one module's row of a map as columns step and value."""
    position = int(modules.loc[modules["name"] == name, "position"].iloc[0])
    return pd.DataFrame({"step": values.columns.to_numpy(), "value": values.to_numpy(float)[position]}).dropna()


def spearman(first: pd.Series, second: pd.Series) -> float:
    """Return the rank correlation of two columns, NaN when one of them does not vary."""
    rows = pd.DataFrame({"a": first, "b": second}).dropna().rank()
    if len(rows) < 3 or rows["a"].nunique() < 2 or rows["b"].nunique() < 2:
        return float("nan")
    return float(rows["a"].corr(rows["b"]))
