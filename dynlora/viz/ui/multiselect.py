"""A choice of several values that the address keeps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import streamlit as st

from dynlora.text import one_line
from dynlora.viz.ui.url_state import put


def several(
    name: str,
    label: str,
    options: Sequence[str],
    words: Mapping[str, str],
    width: Any = 160,
    none: str = "all",
) -> tuple[str, ...]:
    """Draw a choice of several options and return those chosen; `none` says what it means to choose none."""
    key = f"address-{name}"
    wanted = set(st.query_params.get_all(name))
    put(key, [option for option in options if option in wanted])
    chosen = st.multiselect(
        label, options, key=key, placeholder=none, width=width, on_change=_several_changed, args=(name, key),
        format_func=lambda option: one_line(words.get(option, option), 40),
    )  # fmt: skip
    return tuple(chosen)


def _several_changed(name: str, key: str) -> None:
    if st.session_state[key]:
        st.query_params[name] = list(st.session_state[key])
    else:
        st.query_params.pop(name, None)
