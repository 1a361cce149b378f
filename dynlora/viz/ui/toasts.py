"""Short messages on what was just done, shown once the page is drawn again."""

from __future__ import annotations

import streamlit as st

from dynlora.viz.kit.text import markdown_text

KEPT = "toasts"
"""Key of the session under which messages wait for the next drawing of the page."""


def announce(text: str, icon: str = ":material/check:") -> None:
    """Keep a message, plain text, for the next drawing: what was drawn before it goes with the old page."""
    st.session_state.setdefault(KEPT, []).append((text, icon))


def show_toasts() -> None:
    """Show the messages that were kept, each once."""
    for text, icon in st.session_state.pop(KEPT, []):
        st.toast(markdown_text(text, 200), icon=icon)
