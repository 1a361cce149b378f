"""Runs that the viewer hides; the address names them, so that a link shows the same."""

from __future__ import annotations

from collections.abc import Iterable

import streamlit as st

from dynlora.viz.ui.url_state import to_address

MOST_HIDDEN = 200
"""Most runs that an address hides."""


def hidden_runs() -> frozenset[str]:
    """Return the ids of the hidden runs; none that lists hold is one by chance, so nothing is checked."""
    return frozenset(st.query_params.get("hide", "").split(",")[:MOST_HIDDEN]) - {""}


def hide(ids: Iterable[str]) -> None:
    """Hide these runs and no others."""
    chosen = sorted(set(ids))[:MOST_HIDDEN]
    to_address(hide=",".join(chosen) or None)
