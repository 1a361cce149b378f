"""The launch form's widgets: one per field of the configuration's schema."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from typing import Any

import streamlit as st

from dynlora.errors import DynloraError
from dynlora.launch import enqueue
from dynlora.viz.labels import markdown_text
from dynlora.viz.launchform import Field, launch_key
from dynlora.viz.widgets.picker import is_read_only, runs_dir


def field_widget(field: Field, preset: Mapping[str, Any]) -> Any:
    """Draw the widget of a field and return its value; None when it is empty or at its default.

    Args:
        field: the field.
        preset: starting values by key; a new preset starts the widget anew.
    """
    start = preset.get(field.key, field.default)
    key = f"field-{field.key}-{start}"
    label, about = field.label, markdown_text(field.about, 600)  # the label is also read aloud, so no escapes
    value: Any
    if field.choices:
        value = st.selectbox(label, field.choices, index=list(field.choices).index(str(start)), key=key, help=about)
    elif field.kind == "bool":
        value = st.checkbox(label, value=bool(start), key=key, help=about)
    elif field.kind in ("int", "float"):
        value = _number(field, start, key, label, about)
    else:
        value = st.text_input(label, value=start or "", key=key, help=about, max_chars=500).strip() or None
    return None if value == field.default else value


def _number(field: Field, start: Any, key: str, label: str, about: str) -> Any:
    kind = int if field.kind == "int" else float
    as_kind = {
        name: None if bound is None else kind(bound) for name, bound in (("min", field.low), ("max", field.high))
    }
    return st.number_input(
        label, min_value=as_kind["min"], max_value=as_kind["max"], value=None if start is None else kind(start),
        step=1 if kind is int else None, format=None if kind is int else "%.6g", key=key, help=about,
        placeholder="automatic" if field.optional else "",
    )  # fmt: skip


def field_grid(fields: Sequence[Field], preset: Mapping[str, Any], columns: int = 3) -> dict[str, Any]:
    """Draw fields side by side and return what was entered, by key."""
    places = st.columns(columns)
    found = {}
    for number, field in enumerate(fields):
        with places[number % columns]:
            found[field.key] = field_widget(field, preset)
    return found


def start_button(configs: Sequence[Mapping[str, Any]]) -> None:
    """Draw the button that starts runs, and what came of it; a double click starts each once."""
    if is_read_only():
        st.info("This dashboard serves other machines, so it only looks: launch on the machine itself.")
        return
    token = st.session_state.setdefault("launch_token", secrets.token_hex(8))
    label = "Start" if len(configs) == 1 else f"Start {len(configs)} runs"
    if st.button(label, type="primary", icon=":material/rocket_launch:", key="start"):
        st.session_state["launched"] = []
        try:
            with st.spinner("Checking the configuration; a first launch may fetch the model"):
                for config in configs:
                    handle = enqueue(dict(config), runs_dir(), key=launch_key(token, config))
                    st.session_state["launched"].append(handle.id)
        except DynloraError as error:
            st.error(markdown_text(error, 2000))


def launched() -> list[str]:
    """Return the ids of the runs that the last press of the button started."""
    return list(st.session_state.get("launched", []))


def forget_launched() -> None:
    """Let the same form start another run."""
    st.session_state["launch_token"] = secrets.token_hex(8)
    st.session_state["launched"] = []
