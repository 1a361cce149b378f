"""The keys that players and tables take, listed in the menu; the browser test presses each of them."""

from __future__ import annotations

import streamlit as st

KEYS = (
    ("Player", "← →", "previous, next step"),
    ("Player", "Home End", "first, last step"),
    ("Player", "Space", "play or pause, on its button"),
    ("Table", "← → ↑ ↓", "another cell"),
    ("Table", "Shift Space", "tick the row"),
    ("Table", "Ctrl F", "search, on a Mac with ⌘"),
)
"""Where a key works, the key, and what it does. The Tab key leads to players and tables."""


def shortcuts() -> None:
    """Draw the list of keys behind a question mark."""
    with st.popover("Keyboard", icon=":material/help:", type="tertiary", key="keyboard"):
        st.markdown("##### Keyboard shortcuts")
        for where in dict.fromkeys(where for where, _, _ in KEYS):
            st.caption(where)
            rows = [(keys, words) for place, keys, words in KEYS if place == where]
            st.markdown("\n".join(f"- {' '.join(f'`{key}`' for key in keys.split())} {words}" for keys, words in rows))
