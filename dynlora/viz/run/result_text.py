"""Captions of the Run page's results, computed from what the charts show; whoever shows one escapes it."""

from __future__ import annotations

import pandas as pd

from dynlora.text import percent


def before_after(ends: pd.DataFrame, before: str, after: str) -> str:
    """Say on how many probe examples the loss fell, and its means."""
    fell = int((ends["change"] < 0).sum())
    return (
        f"The loss is lower {after} than {before} on {fell} of {len(ends)} probe examples; the mean changed from "
        f"{ends['first_loss'].mean():.3f} to {ends['last_loss'].mean():.3f}."
    )


def answers(counts: pd.DataFrame, before: str, after: str) -> str:
    """Say the accuracy of both sides and how many answers changed, and which way; counts in the order of `ANSWERS`."""
    kept, won, lost, _ = (int(count) for count in counts["count"])
    total = int(counts["count"].sum())
    if not total:
        return "This run has no probe set."
    return (
        f"{before} {percent((kept + lost) / total)} of {total} probe predictions are correct, {after} "
        f"{percent((kept + won) / total)}: {won} predictions became correct, {lost} became wrong."
    )
