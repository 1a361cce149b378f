"""What a person asks a run that writes: how, and what; kept in the address, and in the session over other pages."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import streamlit as st

from dynlora.viz.playground import model as playground_model
from dynlora.viz.playground.cards import strength_slider
from dynlora.viz.playground.chat_model import MOST_NEW, TEMPERATURES, Settings, Talk
from dynlora.viz.ui.cards import note
from dynlora.viz.ui.url_state import put, segmented, to_address

NAMES = ("mode", "temperature", "seed", "tokens", "strength", "other", "text")
"""What the page keeps in its address."""

COMPLETION, CHAT = "completion", "chat"
WORDS = {COMPLETION: "Completion", CHAT: "Chat"}
MOST_SEED = 2**31 - 1

_TALKS, _KEPT, _PENDING, _LONG = "talks", "talk-address", "talk-pending", "talk-long"


def restore(run_id: str) -> None:
    """Write the address as it was when the page was left; one that says something itself is left alone."""
    entries = st.session_state.get(_KEPT, {}).get(run_id, {})
    if "address-mode" not in st.session_state and not any(name in st.query_params for name in NAMES):
        to_address(**entries)


def keep(run_id: str) -> None:
    """Remember the address."""
    entries = st.session_state.setdefault(_KEPT, {})
    entries[run_id] = {name: st.query_params[name] for name in NAMES if name in st.query_params}


def talk_of(run_id: str, *, chat: bool) -> Talk:
    """Return what was said with a run in this session; chat and completion are apart."""
    return st.session_state.setdefault(_TALKS, {}).setdefault((run_id, chat), Talk())


def settings_row(about: Mapping[str, Any]) -> Settings:
    """Draw how texts are written and return it.

    Args:
        about: as the child's `writer` describes the run.
    """
    modes = [COMPLETION, CHAT] if about["chat"] else [COMPLETION]
    usual = CHAT if about["chat"] and about["learned_chat"] else COMPLETION
    with st.container(horizontal=True, vertical_alignment="bottom", key="talk-settings"):
        mode = segmented("mode", "Mode", modes, usual, WORDS.__getitem__)
        temperature = _number(
            "temperature",
            "Temperature",
            0.0,
            *TEMPERATURES,
            step=0.1,
            format="%.1f",
            help="0 takes the most probable token (greedy). Above 0, tokens are drawn from softmax(logits / T).",
        )
        seed = _number("seed", "Seed", 0, 0, MOST_SEED, step=1, help="Of the draw; greedy decoding does not use it.")
        tokens = _number(
            "tokens",
            "Max new tokens",
            min(MOST_NEW, int(about["new"])),
            1,
            MOST_NEW,
            step=1,
            help=f"Prompt and text together have at most {about['total']:,} tokens.",
        )
        strength = strength_slider()
    if not about["chat"]:
        note("The tokenizer of this run has no chat template, so the model can only continue texts.")
    return Settings(mode == CHAT, float(temperature), int(seed), int(tokens), strength)


def completion_form() -> None:
    """Draw the field of a text to continue and what asks."""
    put("playground-text", st.query_params.get("text", "") or st.session_state.get(_LONG, ""))
    with st.form("playground", border=False):
        st.text_area("Prompt", max_chars=playground_model.LIMIT, key="playground-text", height=110)
        st.form_submit_button("Generate", type="primary", icon=":material/psychology:", on_click=_typed)
    if len(st.session_state["playground-text"]) > playground_model.MAX_SHARED:
        note(f"The link does not include texts of more than {playground_model.MAX_SHARED:,} characters.")


def chat_field(talk: Talk) -> None:
    """Draw the field of the next message, and what clears the conversation.

    Streamlit's own chat field is not used: with it the page scrolls to its end at every token.
    """
    with st.form("talk", border=False, clear_on_submit=True):
        st.text_area("Message", max_chars=playground_model.LIMIT, key="talk-message", height=80)
        st.form_submit_button(
            "Send", type="primary", icon=":material/send:", disabled=talk.is_writing, on_click=_said, args=(talk,)
        )
    if talk.turns:
        st.button("Clear conversation", icon=":material/delete:", key="talk-clear", on_click=_cleared, args=(talk,))


def ask(prompt: str) -> None:
    """Put a prompt into the address, or aside where it is too long for one, and let it be asked."""
    is_short = len(prompt) <= playground_model.MAX_SHARED
    to_address(text=prompt if prompt and is_short else None)
    st.session_state[_LONG] = "" if is_short else prompt
    st.session_state[_PENDING] = prompt


def next_prompt(talk: Talk) -> str:
    """Return what is to be asked now, once: what was entered, or the text of a link while nothing was said yet."""
    entered = st.session_state.pop(_PENDING, "")
    return entered or ("" if talk.turns else st.query_params.get("text", ""))


def _typed() -> None:
    ask(st.session_state["playground-text"])


def _said(talk: Talk) -> None:
    """Send a message; the link of a conversation has its first one."""
    message = str(st.session_state["talk-message"] or "")
    if talk.turns:
        st.session_state[_PENDING] = message
    else:
        ask(message)


def _cleared(talk: Talk) -> None:
    talk.stop()
    talk.turns.clear()
    st.session_state.pop(_LONG, None)
    to_address(text=None)


def _number(name: str, label: str, usual: float, low: float, high: float, **more: Any) -> float:
    """Draw a number that lives in the address; what is no number there counts as none."""
    key = f"address-{name}"
    try:
        number = float(st.query_params.get(name, usual))
    except ValueError:
        number = usual
    number = min(max(number, low), high) if math.isfinite(number) else usual
    put(key, type(low)(number))
    value = st.number_input(
        label, low, high, key=key, width=140, on_change=_number_changed, args=(name, key, usual), **more
    )
    return usual if value is None else value


def _number_changed(name: str, key: str, usual: float) -> None:
    value = st.session_state[key]
    to_address(**{name: None if value == usual else value})
