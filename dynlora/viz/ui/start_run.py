"""Queueing a run at the press of a button: once, also when the button is pressed again before the page is drawn."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from typing import Any

import streamlit as st

from dynlora.analysis.config_fields import launch_key
from dynlora.errors import DynloraError
from dynlora.jobs.launch import RunHandle
from dynlora.jobs.quick_launch import start
from dynlora.viz.ui.guard import refusal
from dynlora.viz.ui.run_picker import runs_dir


def start_once(config: Mapping[str, Any], key: str) -> RunHandle | None:
    """Queue a training and return it; None where it is refused, which the page then says.

    Args:
        config: the configuration as plain values.
        key: of the button; a press before the page is refreshed queues nothing more.
    """
    with st.spinner("Checking the configuration"):
        return queued_once(key, config, lambda launched: start(config, runs_dir(), key=launched))


def queued_once(key: str, settings: Mapping[str, Any], queue: Callable[[str], RunHandle]) -> RunHandle | None:
    """Queue a run of any kind and return it; None where it is refused, which the page then says.

    Args:
        key: of the button; a press before the page is refreshed queues nothing more.
        settings: of the run as plain values.
        queue: puts it into the queue under an idempotency key.
    """
    token = st.session_state.setdefault(f"{key}-token", secrets.token_hex(8))
    try:
        made = queue(launch_key(token, dict(settings)))
    except (DynloraError, OSError) as error:
        st.error(refusal(error))
        return None
    st.session_state.pop(f"{key}-token", None)
    return made
