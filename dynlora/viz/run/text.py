"""Captions of the Run page: what each chart shows, in a sentence."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dynlora.viz.kit.text import number, one_line, percent


def confusion(counts: Sequence[Sequence[float]], labels: Sequence[str], step: int) -> str:
    """Say the share of right answers and the most frequent mistake."""
    table = np.asarray(counts, dtype=float)
    total = table.sum()
    if not total:
        return "Nothing was evaluated."
    wrong = table - np.diag(np.diag(table))
    truth, guess = np.unravel_index(int(wrong.argmax()), wrong.shape)
    words = (
        f"At step {step}, {percent(np.trace(table) / total)} of {number(int(total))} held-out predictions are correct"
    )
    if not wrong.max():
        return words + "."
    return (
        f"{words}; the most frequent error is {one_line(labels[int(truth)], 40)} predicted as "
        f"{one_line(labels[int(guess)], 40)} ({number(int(wrong.max()))} examples)."
    )
