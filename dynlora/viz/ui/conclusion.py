"""The first card of a page: its result in a sentence, what it rests on, and where to go next."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import streamlit as st

from dynlora.viz.ui.cards import card, note, safe


@contextmanager
def conclusion(sentence: str, then: str = "") -> Iterator[None]:
    """Draw the card; what is drawn inside the block, such as links, is what to do next.

    Args:
        sentence: the result, with its n; plain text.
        then: what limits it, or what to do next; plain text.
    """
    with card("Conclusion", "conclusion"):
        st.markdown(f"**{safe(sentence)}**")
        if then:
            note(then)
        with st.container(horizontal=True, vertical_alignment="center", gap="small", key="conclusion-next"):
            yield
