"""The fields of a distillation, on the form of the page that recycles runs."""

from __future__ import annotations

from typing import Any

import streamlit as st

from dynlora.kinds.distil import NOT_RECYCLE
from dynlora.viz.ui.cards import note

EFFORTS = {"Quick": (32, 100), "Usual": (64, 200), "Thorough": (256, 1000)}
"""(texts of each teacher, steps of the student) by name."""


def fields() -> dict[str, Any]:
    """Draw the fields and return the settings."""
    note(NOT_RECYCLE)
    first, second, third = st.columns(3)
    effort = first.selectbox("Effort", list(EFFORTS), index=1, key="distil-effort")
    rank = second.number_input("Rank of the student", 1, 1024, 8, key="distil-rank")
    tokens = third.number_input("Tokens per text, at most", 2, 4096, 64, key="distil-tokens")
    samples, steps = EFFORTS[effort]
    return {"samples": samples, "train_steps": steps, "rank": int(rank), "tokens": int(tokens)}
