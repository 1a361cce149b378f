"""Questions that only the trained model can answer: asked of the inference child, kept while the run stays as it is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import streamlit as st

from dynlora.errors import DynloraError
from dynlora.inference.client import shared
from dynlora.jobs import warm
from dynlora.viz.kit.text import markdown_text
from dynlora.viz.ui.cached_queries import version


@st.cache_data(max_entries=200, ttl=3600, show_spinner=False)
def _answer(folder: str, version: tuple[Any, ...], ask: str, arguments: str) -> Any:
    return shared().ask(ask, folder=folder, **json.loads(arguments))


def ask_model(folder: Path, ask: str, **arguments: Any) -> Any:
    """Return what a run's trained model says, None when it cannot; then the page says why and continues.

    Args:
        folder: of the run.
        ask: what, one of `answering.OPERATIONS`.
        arguments: JSON values; `which` is the last adapter unless it says otherwise.
    """
    try:
        with st.spinner("Running the model"):
            said = json.dumps({"which": "last", **arguments}, sort_keys=True)
            return _answer(str(folder), version(folder), ask, said)
    except DynloraError as error:
        st.error(markdown_text(str(error), 2000))
        return None


def prepare_model() -> None:
    """Let the inference child begin to import, where the server keeps processes warm: a page opens that will ask it."""
    if warm.is_wanted():
        shared().prepare()
