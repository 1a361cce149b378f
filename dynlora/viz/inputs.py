"""What the Inputs page computes before it draws: groups, gates and the probe set, with names for positions."""

# pyright: reportAttributeAccessIssue=false, reportGeneralTypeIssues=false, reportReturnType=false
# (pandas comes without types: a column is taken for a frame and a frame for a column)
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd


def named(examples: pd.DataFrame, groups: Sequence[str], labels: Sequence[str]) -> pd.DataFrame:
    """Return the probe set with names where the store holds positions of groups, labels and predictions."""
    found = examples.copy()
    found["group"] = [_at(groups, value) for value in found["group"]]
    found["label"] = [_at(labels, value) for value in found["label"]]
    found["prediction"] = [
        _at(labels, int(value)) if value == value and labels and float(value).is_integer() else value
        for value in found["prediction"]
    ]
    found["prediction"] = found["prediction"].map(lambda value: None if value != value else str(value))
    return found


def _at(names: Sequence[str], value: Any) -> Any:
    text = "" if value is None else str(value)
    if text in names or not text.isdecimal() or len(text) > 6 or int(text) >= len(names):
        return value if value is None else text
    return str(names[int(text)])


def over_steps(frame: pd.DataFrame, groups: Sequence[str]) -> pd.DataFrame:
    """Return a signal over groups long: columns step, group, value, with the groups' own names."""
    names = list(groups) if len(groups) == frame.shape[1] - 1 else list(frame.columns[1:])
    values = frame.iloc[:, 1:].to_numpy(float)
    steps = frame["step"].repeat(len(names)).to_numpy()
    return pd.DataFrame({"step": steps, "group": names * len(frame), "value": values.ravel()})


def gate_table(gates: pd.DataFrame) -> pd.DataFrame:
    """Return the gates as a table: column `group`, then one per module."""
    found = gates.reset_index(drop=True)
    found.insert(0, "group", [str(name) for name in gates.index], allow_duplicates=True)
    return found


def hardest(examples: pd.DataFrame) -> pd.DataFrame:
    """Return the probe examples, the costliest first: loss, group, label, prediction, text."""
    columns = ["loss", "group", "label", "prediction", "text", "text_pair"]
    found = examples.sort_values("loss", ascending=False, kind="stable")[columns]
    return found.drop(columns="text_pair") if found["text_pair"].isna().all() else found
