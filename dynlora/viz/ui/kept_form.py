"""What was entered in a form, kept while other pages are looked at: streamlit forgets it with the page."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import streamlit as st

from dynlora.viz.ui.url_state import to_address

_FORM, _ADDRESS = "kept-form", "kept-address"


def start_from(start: Mapping[str, Any]) -> None:
    """Forget what was entered on top of other starting values; called before the form is drawn.

    Args:
        start: starting values of the form, by name.
    """
    form = st.session_state.setdefault(_FORM, {"start": None, "values": {}})
    if form["start"] != dict(start):
        st.session_state[_FORM] = {"start": dict(start), "values": {}}


def begin(key: str, value: Any) -> None:
    """Give a widget its value before it is drawn: what was entered when the page was left, else `value`.

    The widget must get no value of its own, as streamlit warns of two.
    """
    if key not in st.session_state:
        st.session_state[key] = _values().get(key, value)


def keep(key: str) -> None:
    """Remember what a widget holds; called after it is drawn."""
    _values()[key] = st.session_state[key]


def _values() -> dict[str, Any]:
    return st.session_state.setdefault(_FORM, {"start": None, "values": {}})["values"]


def restore_address(names: tuple[str, ...], control: str) -> None:
    """Write the address of the form as it was left; an address that names something itself is left alone.

    Args:
        names: what the form keeps in its address.
        control: key of a control that every draw of the form has: where it is missing, the form was just opened.
    """
    if control not in st.session_state and not any(name in st.query_params for name in names):
        to_address(**{name: value for name, value in st.session_state.get(_ADDRESS, {}).items() if name in names})


def keep_address(names: tuple[str, ...]) -> None:
    """Remember what the form has in its address."""
    st.session_state[_ADDRESS] = {name: st.query_params[name] for name in names if name in st.query_params}


STARTED_IN_VARIABLE = "DYNLORA_STARTED_IN"
"""Folder that `dynlora ui` was started in."""


def from_where_it_started(text: str) -> Path:
    """Return a path as it is meant in the folder that the dashboard was started in; children start elsewhere."""
    return Path(os.environ.get(STARTED_IN_VARIABLE) or os.getcwd()) / Path(os.path.expanduser(text))
