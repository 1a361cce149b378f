"""Queueing a run at the press of a button: once, also when the button is pressed again before the page is drawn."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any

import streamlit as st

from dynlora.errors import DynloraError
from dynlora.jobs.launch import RunHandle
from dynlora.jobs.quick_launch import start
from dynlora.viz.kit.config_fields import launch_key
from dynlora.viz.ui.frame import refusal
from dynlora.viz.ui.run_picker import runs_dir


def start_once(config: Mapping[str, Any], key: str) -> RunHandle | None:
    """Queue a run and return it; None where it is refused, which the page then says.

    Args:
        config: the configuration as plain values.
        key: of the button; a press before the page is refreshed queues nothing more.
    """
    token = st.session_state.setdefault(f"{key}-token", secrets.token_hex(8))
    try:
        with st.spinner("Checking the configuration"):
            made = start(config, runs_dir(), key=launch_key(token, dict(config)))
    except (DynloraError, OSError) as error:
        st.error(refusal(error))
        return None
    st.session_state.pop(f"{key}-token", None)
    return made
