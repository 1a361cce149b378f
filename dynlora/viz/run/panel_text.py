"""Sentences of the card beside the list of runs."""

from __future__ import annotations

import pandas as pd

from dynlora.analysis.frames import smoothed
from dynlora.text import number


def loss(train: pd.DataFrame, held_out: pd.DataFrame) -> str:
    """Say where both losses stand; frames hold step and value."""
    known = train.dropna(subset=["value"])
    if known.empty:
        return "No loss has been recorded yet."
    words = f"Training loss {smoothed(known['value']).iloc[-1]:.3f} at step {number(int(known['step'].iloc[-1]))}"
    return f"{words}; held-out loss {held_out['value'].iloc[-1]:.3f}." if len(held_out) else f"{words}."


def ranks(span: pd.DataFrame) -> str:
    """Say between which ranks the modules lie at the last step; columns step, lowest, mean, highest."""
    last = span.iloc[-1]
    low, high = number(int(last["lowest"])), number(int(last["highest"]))
    return f"Every module has rank {low}." if low == high else f"Ranks from {low} to {high}, mean {last['mean']:.1f}."
