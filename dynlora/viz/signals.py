"""The signals over modules that pages can show: their words, their questions, their sentence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from dynlora.viz import sentences

WORDS = {
    "rank": "rank",
    "importance": "importance",
    "gate": "gate",
    "grad_norm": "gradient",
    "delta_norm": "delta norm",
    "effective_rank": "effective rank",
}
"""Recorded name of each signal, and what people call it."""

QUESTIONS = {
    "rank": "Where capacity sits, step by step",
    "importance": "Where the loss hangs on the adapter",
    "gate": "Which gates the inputs open",
    "grad_norm": "Where gradients are large",
    "delta_norm": "Where the adapter moved the weights",
    "effective_rank": "How many components carry the update",
}
"""The question each signal's map answers, its title."""

_CENTRES = {"gate": 1.0}


def centre(signal: str) -> float | None:
    """Return the neutral value of a signal; None when its scale starts at zero."""
    return _CENTRES.get(signal)


def sentence(
    signal: str, modules: pd.DataFrame, start: np.ndarray, values: np.ndarray | None, step: int, events: Sequence[int]
) -> str:
    """Return the sentence under a signal's map; arrays as recorded, at the first step and at `step`."""
    if values is None:
        return f"No {WORDS[signal]} was recorded up to step {step}."
    if signal == "rank":
        return sentences.rank_moved(modules, start, values, step, events)
    return sentences.signal_at(modules, values, WORDS[signal], step)


def binned(heat: Any) -> str:
    """Say how many of the recorded steps a heat map shows; empty when it shows them all."""
    shown = heat.frame.shape[1]
    return "" if shown >= heat.points else f"{shown:,} of {heat.points:,} recorded steps shown, the last of each bin."


def uniform_rank(summary: Mapping[str, Any]) -> int | None:
    """Return the rank every module would have under uniform LoRA, None when it is not known."""
    rank = ((summary.get("config") or {}).get("adapter") or {}).get("rank")
    return rank if isinstance(rank, int) and 0 < rank <= 1024 else None
