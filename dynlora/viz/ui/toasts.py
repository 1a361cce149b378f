"""Short messages on what was just done, shown once the page is drawn again."""

from __future__ import annotations

import streamlit as st

from dynlora.text import markdown_text

KEPT = "toasts"
"""Key of the session under which messages wait for the next drawing."""


def announce(text: str, icon: str = ":material/check:") -> None:
    """Keep a message, plain text, for the next drawing of the page or of a fragment that follows a run.

    What is drawn before a rerun goes with the old page. What a callback of a fragment draws takes the place of the
    first elements of the page, its style sheet among them: a callback announces, and draws nothing.
    """
    st.session_state.setdefault(KEPT, []).append((text, icon))


def show_toasts() -> None:
    """Show the messages that were kept, each once."""
    for text, icon in st.session_state.pop(KEPT, []):
        st.toast(markdown_text(text, 200), icon=icon)
