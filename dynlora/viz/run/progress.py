"""What a run's readings over time show: components by kind of module, and the machine in use."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from dynlora.text import duration


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
