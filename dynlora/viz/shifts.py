"""What the shift lab computes before it draws: metrics and gates in two states."""

# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false, reportGeneralTypeIssues=false
# (pandas comes without types)
from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from dynlora.viz.labels import one_line, percent, plural, score

KINDS = {
    "cut": "cut short",
    "typos": "typing mistakes",
    "dropped": "words missing",
    "upper": "capitals",
    "negated": "negated",
}
"""Perturbations the inference child knows, and what people call them."""

STRENGTHS = {"cut": "share cut", "negated": "share of the texts"}
"""What the strength of a perturbation is a share of; of the others it is a share of the words."""


def metric_table(states: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """Return metrics as rows, states as columns, with the change where there are two."""
    names = list(dict.fromkeys(name for state in states.values() for name in state["metrics"]))
    frame = pd.DataFrame(
        {title: [state["metrics"].get(name) for name in names] for title, state in states.items()}, dtype=float
    )
    frame.insert(0, "metric", names)
    if len(states) == 2:
        first, second = states
        frame["change"] = frame[second] - frame[first]
    return frame


def gate_frame(before: Mapping[str, Any], after: Mapping[str, Any], modules: pd.DataFrame) -> pd.DataFrame:
    """Return each module's mean gate in two states, in the order of `modules`: columns short, before, after."""
    if before.get("gate") is None or after.get("gate") is None:
        return pd.DataFrame({"short": [], "before": [], "after": []})
    order = modules["position"].to_numpy(int)
    sides = (np.array([np.nan if v is None else v for v in state["gate"]], dtype=float) for state in (before, after))
    first, second = (side[order] for side in sides)
    return pd.DataFrame({"short": modules["short"].to_numpy(), "before": first, "after": second})


def group_table(found: Mapping[str, Any]) -> pd.DataFrame:
    """Return metrics of each input group: columns group, rows and the metrics."""
    rows = [{"group": name, "rows": part["rows"], **part["metrics"]} for name, part in found["groups"].items()]
    return pd.DataFrame([{"group": "all", "rows": found["whole"]["rows"], **found["whole"]["metrics"]}, *rows])


def shift_sentence(found: Mapping[str, Any], metric: str) -> str:
    """Return the sentence under a perturbation."""
    before, after = found["before"]["metrics"].get(metric), found["after"]["metrics"].get(metric)
    words = KINDS.get(str(found["kind"]), str(found["kind"]))
    gates = gate_distance(found["before"], found["after"])
    moved = "" if gates is None else f" Gates move by {gates:.4f} in the mean."
    changed = f"{percent(found['changed'])} of {plural(found['before']['rows'], 'prediction')} change"
    return (
        f"{one_line(words.capitalize(), 40)} ({percent(found['strength'], 0)}): {metric} {score(before)} becomes "
        f"{score(after)}, and {changed}.{moved}"
    )


def gate_distance(before: Mapping[str, Any], after: Mapping[str, Any]) -> float | None:
    """Return how far the mean gates of two states lie apart, the mean over the modules; None without gates."""
    if before.get("gate") is None or after.get("gate") is None:
        return None
    pairs = [(a, b) for a, b in zip(before["gate"], after["gate"], strict=False) if a is not None and b is not None]
    return float(np.mean([abs(a - b) for a, b in pairs])) if pairs else None
