"""The keys that pages, players and tables take, listed in the menu; the browser test presses each of them."""

from __future__ import annotations

import streamlit as st

PAGES = {
    "h": "home", "r": "runs", "l": "launch", "u": "run", "c": "capacity", "i": "inputs", "m": "compare",
    "p": "playground", "s": "shrink", "e": "decode", "y": "recycle", "t": "tour", "d": "methods",
}  # fmt: skip
PAGE_KEYS = {letter: "" if page == "home" else page for letter, page in PAGES.items()}
"""End of the address of the page that G and a letter open, by the letter."""

KEYS = (
    ("Anywhere", "G H", "go to Home"),
    ("Anywhere", "G R", "go to Runs"),
    ("Anywhere", "G L", "go to Launch"),
    ("Anywhere", "G U", "go to Run"),
    ("Anywhere", "G C", "go to Capacity"),
    ("Anywhere", "G I", "go to Inputs"),
    ("Anywhere", "G M", "go to Compare"),
    ("Anywhere", "G P", "go to Playground"),
    ("Anywhere", "G S", "go to Shrink"),
    ("Anywhere", "G E", "go to Decode"),
    ("Anywhere", "G Y", "go to Recycle"),
    ("Anywhere", "G T", "go to Tour"),
    ("Anywhere", "G D", "go to Methods"),
    ("Anywhere", "/", "search runs"),
    ("Anywhere", "?", "this list"),
    ("Anywhere", "Space", "play or pause"),
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
