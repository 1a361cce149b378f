"""What kind of data a source holds and which column is what: pickers where the table is known, else fields of text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import streamlit as st

from dynlora.data_files.opening import ENCODINGS
from dynlora.text import markdown_text
from dynlora.viz.launch import data_file, form_model
from dynlora.viz.launch.form import config_grid
from dynlora.viz.ui import url_state

GROUPINGS = {None: "automatic", "length": "length", "label": "label", "clusters": "clusters", "none": "No groups"}
"""Input groups that are no column."""


def pick_kind(start: str, key: str) -> str:
    """Draw the choice of the kind of data and return it.

    Args:
        start: the kind that is chosen first.
        key: of the source.
    """
    name = f"kind-{key}-{start}"
    url_state.begin(name, start)
    kind_name = st.segmented_control(
        "Kind of data",
        list(data_file.KINDS),
        key=name,
        format_func=data_file.KINDS.__getitem__,
        help="What a row is. A label is predicted; prompts, conversations and plain text are continued by a language "
        "model.",
    )
    url_state.keep(name)
    return kind_name or start


def typed(start: Mapping[str, Any], key: str) -> dict[str, Any]:
    """Draw kind and columns of a table that cannot be read yet as fields of text, and return them by dotted key."""
    kind = pick_kind(data_file.of_start(start) or "labelled", key)
    values = config_grid([f"data.{role}" for role in data_file.ROLES[kind]], start, 4)
    return values | chosen_loss(kind, start, key) | data_file.task_of(kind)


def of_table(
    rows: pd.DataFrame, start: Mapping[str, Any], key: str, place: Any, *, is_same: bool
) -> tuple[str, dict[str, Any]]:
    """Draw kind and columns of a table and return the kind, and what was chosen by dotted key.

    Args:
        rows: the first of the table.
        start: starting values by dotted key.
        key: of the table.
        place: container of the choice of the kind.
        is_same: the starting values are of this table.
    """
    known = (data_file.of_start(start) if is_same else None) or data_file.guessed_kind(rows)
    with place:
        kind = pick_kind(known, key)
    guess = data_file.guessed(rows) | data_file.guessed_written(rows)
    suggested = {
        role: start.get(f"data.{role}") if is_same and kind == known else guess.get(role)
        for role in data_file.ROLES[kind]
    }
    places = st.columns(len(suggested) + (kind in data_file.LOSS_ON), vertical_alignment="bottom")
    values = _columns(rows, kind, suggested, key, places)
    if kind in data_file.LOSS_ON:
        with places[len(suggested)]:
            values |= chosen_loss(kind, start if is_same else {}, key)
    return kind, values | data_file.task_of(kind)


def chosen_loss(kind: str, start: Mapping[str, Any], key: str) -> dict[str, Any]:
    """Draw the choice of the tokens that count in the loss, where a kind of data has one; return it by dotted key."""
    options = data_file.LOSS_ON.get(kind)
    if not options:
        return {}
    begin = start.get("data.loss_on") if start.get("data.loss_on") in options else options[0]
    name = f"loss-{kind}-{key}-{begin}"
    url_state.begin(name, begin)
    about = markdown_text(form_model.config_field("data.loss_on").about, 600)
    words = data_file.LOSS_WORDS[kind]
    choice = st.selectbox("Loss on", list(options), key=name, help=about, format_func=words.__getitem__)
    url_state.keep(name)
    return {} if choice == options[0] else {"data.loss_on": choice}


def pick_encoding(place: Any, start: Any, key: str) -> str | None:
    """Draw the choice of a text file's encoding and return it; None: found from the bytes."""
    options = ["auto", *ENCODINGS]
    begin = start if start in options else "auto"
    name = f"encoding-{key}-{begin}"
    about = markdown_text(form_model.config_field("data.encoding").about, 600)
    url_state.begin(name, begin)
    with place:
        encoding = st.selectbox(
            "Encoding", options, key=name, help=about, format_func=lambda name: "automatic" if name == "auto" else name
        )
    url_state.keep(name)
    return None if encoding == "auto" else encoding


def _columns(
    rows: pd.DataFrame, kind: str, suggested: Mapping[str, Any], key: str, places: Sequence[Any]
) -> dict[str, Any]:
    """Draw the choice of columns side by side and return it by dotted key."""
    names: list[Any] = list(rows.columns)
    written = data_file.is_written(kind)
    taken = [suggested[role] for role in ("prompt", "completion", "messages") if suggested.get(role)]
    groups = [name for name in data_file.groupable(rows) if name not in GROUPINGS and name not in taken]
    columns = {}
    for place, role in zip(places, data_file.ROLES[kind], strict=False):
        options = names
        if role in data_file.OPTIONAL:
            options = [None, *names]
        if role == "group_by":
            options = [*(name for name in GROUPINGS if not (written and name == "label")), *groups]
        about = form_model.config_field(f"data.{role}").about
        start = suggested[role] if suggested[role] in options else options[0]
        name = f"column-{role}-{key}-{options.index(start)}"
        words = GROUPINGS if role == "group_by" else {None: "None"}
        url_state.begin(name, start)
        with place:
            columns[f"data.{role}"] = st.selectbox(
                data_file.ROLE_WORDS[role],
                options,
                key=name,
                help=markdown_text(about, 600),
                placeholder=words.get(None),
                format_func=lambda name, words=words: words.get(name) or data_file.with_values(rows, str(name)),
            )
        url_state.keep(name)
    if "label" in data_file.ROLES[kind]:
        columns["data.label"] = columns["data.label"] or form_model.config_field("data.label").default
    return columns
