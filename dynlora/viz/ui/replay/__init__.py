"""The model as a picture that plays: drawn and animated in the browser, the step one stops on comes back."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

import streamlit as st
from streamlit.components.v2 import component

from dynlora.viz.ui.url_state import to_address

_FILES = files("dynlora.viz.ui.replay")
_element = component(
    "dynlora_replay",
    css=_FILES.joinpath("replay.css").read_text("utf-8"),
    js=_FILES.joinpath("replay.js").read_text("utf-8"),
)


def replay(data: dict[str, Any], *, plays: bool = False, is_linked: bool = True, is_large: bool = False) -> None:
    """Draw the picture with its player.

    Args:
        data: as `replay_frames.frames` returns it.
        plays: it starts by itself and begins again at its end, except where a viewer asked for less motion.
        is_linked: the step that a viewer stops on goes to the address.
        is_large: its words are larger, for a room.
    """
    values = {**data, "plays": plays, "linked": is_linked, "large": is_large}
    _element(key="replay", data=values, on_step_change=_stopped)


def _stopped() -> None:
    step = st.session_state["replay"].get("step")
    if isinstance(step, int) and not isinstance(step, bool) and 0 <= step < 10**12:
        to_address(step=step)
