"""What a run's readings over time show: components by kind of module, and the machine in use."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from dynlora.text import duration


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
