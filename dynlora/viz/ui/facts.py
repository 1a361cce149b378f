"""What is said of a thing in a word or two, one line each."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from dynlora.text import markdown_text


def facts(pairs: Sequence[tuple[str, str]], source: str | None = None) -> None:
    """Draw pairs of what and words.

    Args:
        pairs: plain text.
        source: address that the last pair's words lead to; made by ourselves, never a user's.
    """
    lines = [f"**{markdown_text(what, 40)}**: {markdown_text(words, 400)}" for what, words in pairs]
    if source and pairs:
        what, words = pairs[-1]
        lines[-1] = f"**{markdown_text(what, 40)}**: [{markdown_text(words, 400)}]({source})"
    st.caption("\n\n".join(lines))
