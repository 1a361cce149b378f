"""The card Tokens and loss mask: what a language model sees of the data, asked of a child with the tokenizer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import streamlit as st

from dynlora.analysis import config_fields
from dynlora.errors import DynloraError
from dynlora.jobs import cli_client
from dynlora.text import markdown_text
from dynlora.viz.launch import form_model, token_view
from dynlora.viz.launch.data_source import Source
from dynlora.viz.ui.cards import asked_for_texts, card, colours, note, under
from dynlora.viz.ui.run_picker import is_read_only, runs_dir

KEPT = 4
"""Previews that a session remembers, so that going back to earlier settings shows theirs again."""


def show_tokens(config: Mapping[str, Any], source: Source, place: Any) -> None:
    """Draw the button that asks for the tokens, and what was answered; nothing for data with labels.

    Args:
        config: the whole configuration, as the form has it.
        source: the choice of data; the button waits for what it misses.
        place: container of the card.
    """
    if is_read_only() or not source.is_written:
        return
    missing = source.missing
    with place, card("Tokens and loss mask", "tokens"):
        usual = form_model.config_field("model.name").default
        if (config.get("model") or {}).get("name") in (None, usual):
            st.warning(
                f"The model {usual} is an encoder and cannot write texts. Set Model to a decoder, such as "
                "smollm2\\-135m, or begin with the preset Instruction tuning.",
                icon=":material/warning:",
            )
        known = st.session_state.setdefault("token-previews", {})
        key = _key(config)
        pressed = st.button(
            "Show tokens", icon=":material/segment:", key="ask-tokens", disabled=bool(missing),
            help=missing or "Loads the tokenizer of the model, not the model, and applies its chat template.",
        )  # fmt: skip
        if pressed:
            with st.spinner("Loading the tokenizer and the data"):
                known[key] = _answer(config)
            while len(known) > KEPT:
                known.pop(next(iter(known)))
        found = known.get(key)
        if found is None:
            note("Shows a few examples as the model sees them, and which tokens are in the loss.")
        elif isinstance(found, str):
            st.error(markdown_text(found, 2000))
        else:
            _draw(found)


def _key(config: Mapping[str, Any]) -> str:
    """Return what the tokens depend on, as a key: another one is another preview."""
    needed = {"data": config.get("data"), "model": config.get("model"), "seed": config.get("seed")}
    return config_fields.launch_key("tokens", needed)


def _answer(config: Mapping[str, Any]) -> Any:
    """Return the preview, or why there is none, in a sentence."""
    try:
        return cli_client.token_preview(dict(config), runs_dir())
    except DynloraError as error:
        return str(error)


def _draw(found: Mapping[str, Any]) -> None:
    """Draw a preview: what is lost first, then the rows."""
    if lost := token_view.lost_words(found):
        st.warning(markdown_text(lost, 800), icon=":material/content_cut:")
    for sentence in found["notes"]:
        st.warning(markdown_text(sentence, 600), icon=":material/warning:")
    draw_rows(found["rows"], "tokens", is_chat=found["is_chat"])
    note(token_view.cut_words(found))


def draw_rows(rows: Sequence[Mapping[str, Any]], key: str, *, is_chat: bool = False) -> None:
    """Draw rows as tokens, and the same as a table."""
    is_whole = asked_for_texts(token_view.hidden(rows), key)
    st.html(token_view.rows_html(rows, colours(), is_whole=is_whole))
    under(token_view.caption(rows, is_chat=is_chat), token_view.frame(rows, is_whole=is_whole), key)
