"""A search box for models and data sets of the hub; the hub is asked when its button is pressed, never before."""

from __future__ import annotations

import streamlit as st

from dynlora.assets import hub
from dynlora.assets.hub import Hit, Kind
from dynlora.errors import DynloraError
from dynlora.text import one_line
from dynlora.viz.ui.cards import note
from dynlora.viz.ui.live import refusal
from dynlora.viz.ui.run_picker import is_read_only

WORDS = {"model": "models", "dataset": "data sets"}


def pick(kind: Kind, field: str) -> None:
    """Draw the search; what is chosen is written into a field of the form.

    Args:
        kind: model or dataset.
        field: key of the text field that takes the id of a hit.
    """
    if is_read_only():
        return
    if hub.is_off():
        note("The search of the hub is off, because HF_HUB_OFFLINE is set.")
        return
    left, right = st.columns([4, 1], vertical_alignment="bottom")
    about = (
        f"Words of the id, such as sentiment. They are sent to the hub when Search is pressed. It lists {WORDS[kind]}"
    )
    words = left.text_input(
        f"Search {WORDS[kind]} of the hub", key=f"hub-words-{kind}", max_chars=100, help=f"{about} by downloads."
    ).strip()
    pressed = right.button("Search", key=f"hub-search-{kind}", icon=":material/search:", width="stretch")
    if pressed and words:
        with st.spinner("Asking the hub"):
            st.session_state[_found(kind)] = _asked(kind, words)
        st.session_state.pop(_chosen(kind), None)
    _show(kind, field)


def _asked(kind: Kind, words: str) -> tuple[str, list[Hit] | str]:
    """Return the words with their hits, or with the sentence of what went wrong."""
    try:
        return words, hub.search(kind, words)
    except DynloraError as error:
        return words, str(error)


def _show(kind: Kind, field: str) -> None:
    """Draw what the last search found."""
    words, hits = st.session_state.get(_found(kind), ("", []))
    if isinstance(hits, str):
        st.error(refusal(DynloraError(hits)))
    elif hits:
        downloads = {hit.id: hit.downloads for hit in hits}
        st.selectbox(
            f"Found for “{one_line(words, 40)}”",
            list(downloads),
            index=None,
            key=_chosen(kind),
            placeholder=f"Choose one of {len(hits)}",
            on_change=_use,
            args=(kind, field),
            format_func=lambda name: f"{name} ({downloads.get(name, 0):,} downloads)",
        )
    elif words:
        note(f"The hub has no {WORDS[kind]} with “{one_line(words, 40)}” in their id. Try fewer words.")


def _use(kind: Kind, field: str) -> None:
    """Write the chosen id into the field of the form."""
    chosen = st.session_state.get(_chosen(kind))
    if chosen is not None:
        st.session_state[field] = chosen


def _found(kind: Kind) -> str:
    return f"hub-found-{kind}"


def _chosen(kind: Kind) -> str:
    return f"hub-chosen-{kind}"
