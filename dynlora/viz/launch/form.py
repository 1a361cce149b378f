"""The launch form's widgets: one per field of the configuration's schema."""

from __future__ import annotations

import math
import secrets
from collections.abc import Mapping, Sequence
from typing import Any

import streamlit as st

from dynlora.analysis.config_fields import launch_key
from dynlora.config_files import yaml_text
from dynlora.errors import DynloraError
from dynlora.jobs.launch import in_queue
from dynlora.jobs.quick_launch import start
from dynlora.text import markdown_text
from dynlora.viz.launch import form_model, hub_search
from dynlora.viz.launch.form_model import Field
from dynlora.viz.ui import kept_form
from dynlora.viz.ui.cards import card, note
from dynlora.viz.ui.frame import say_read_only
from dynlora.viz.ui.guard import refusal
from dynlora.viz.ui.kept_form import from_where_it_started
from dynlora.viz.ui.run_actions import queued_words
from dynlora.viz.ui.run_picker import is_read_only, runs_dir
from dynlora.viz.ui.url_state import choose


def field_key(field: Field, start: Mapping[str, Any]) -> str:
    """Return the key of the widget of a field; another start has another one."""
    return f"field-{field.key}-{str(field.fitting(start.get(field.key, field.default)))[:200]}"


NOTHING = ""
"""The option of a field that stays empty."""


def field_widget(field: Field, start: Mapping[str, Any]) -> Any:
    """Draw the widget of a field and return its value; None when it is empty or at its default.

    Args:
        field: the field.
        start: starting values by key; another start begins a new widget.
    """
    value = field.fitting(start.get(field.key, field.default))
    key = field_key(field, start)
    label, about = field.label, markdown_text(field.about, 600)  # the label is also read aloud, so no escapes
    found: Any
    if field.choices and field.kind == "tuple":
        kept_form.begin(key, list(value or ()))
        found = st.multiselect(label, field.choices, key=key, help=about, placeholder=field.empty) or None
    elif field.choices:
        options = [NOTHING, *field.choices] if field.optional else list(field.choices)
        kept_form.begin(key, NOTHING if value is None else str(value))
        found = st.selectbox(label, options, key=key, help=about, format_func=lambda one: one or field.empty) or None
    elif field.kind == "bool":
        kept_form.begin(key, bool(value))
        found = st.checkbox(label, key=key, help=about)
    elif field.kind in ("int", "float"):
        found = _number(field, value, key, label, about)
    else:
        kept_form.begin(key, (", ".join(value) if isinstance(value, tuple) else str(value or ""))[:500])
        about_empty = field.empty if field.optional else None
        found = st.text_input(label, key=key, help=about, max_chars=500, placeholder=about_empty).strip() or None
        if field.kind == "tuple" and found:
            found = [part.strip() for part in found.split(",") if part.strip()] or None
    kept_form.keep(key)
    return None if found == field.default else found


def _number(field: Field, start: Any, key: str, label: str, about: str) -> Any:
    kind = int if field.kind == "int" else float
    low, high = (None if bound is None else kind(bound) for bound in (field.low, field.high))
    kept_form.begin(key, None if start is None else kind(start))
    return st.number_input(
        label,
        min_value=low,
        max_value=high,
        value=None,
        step=1 if kind is int else _tenth(start),
        format=None if kind is int else "%.6g",
        key=key,
        help=about,
        placeholder=field.empty if field.optional else "",
    )


def _tenth(value: float | None) -> float:
    """Return a step that suits a number's size: 0.0001 for 0.001."""
    return 0.01 if not value else 10.0 ** (math.floor(math.log10(abs(value))) - 1)


def kept_text(label: str, start: str, name: str, longest: int, about: str) -> str:
    """Draw a field of text that is no field of the configuration, and return what it holds, without space around."""
    key = f"{name}-{start}"
    kept_form.begin(key, start)
    found = st.text_input(label, key=key, max_chars=longest, help=about).strip()
    kept_form.keep(key)
    return found


def field_grid(fields: Sequence[Field], start: Mapping[str, Any], columns: int = 3) -> dict[str, Any]:
    """Draw fields side by side and return what was entered, by key."""
    found = {}
    for first in range(0, len(fields), columns):
        places = st.columns(columns, vertical_alignment="bottom")
        for place, field in zip(places, fields[first : first + columns], strict=False):
            with place:
                found[field.key] = field_widget(field, start)
    return found


def config_grid(keys: Sequence[str], start: Mapping[str, Any], columns: int = 3) -> dict[str, Any]:
    """Draw fields of the configuration, named by their keys, as `field_grid` does."""
    return field_grid([form_model.config_field(key) for key in keys], start, columns)


def what_and_how_long(start: Mapping[str, Any]) -> tuple[dict[str, Any], list[int]]:
    """Draw the fields of model and training and return their values and the seeds.

    Raises:
        ConfigError: when the seeds name no runs.
    """
    first, second, third = st.columns([2, 2, 1], vertical_alignment="bottom")
    with third:
        about = "One number, a range such as 0..4, or a list such as 1, 5. Each seed is one run. Key: seed."
        seeds = kept_text("Seeds", str(start.get("seed", 0))[:60], "seeds", 60, about)
    return _model_and_training(start, first, second, form_model.TRAINING), form_model.seeds(seeds)


def what_is_shared(start: Mapping[str, Any]) -> dict[str, Any]:
    """Draw the fields of model and training that all runs of an experiment share, and return their values."""
    shared = [key for key in form_model.TRAINING if key != "adapter.rank"]
    return _model_and_training(start, *st.columns(2, vertical_alignment="bottom"), shared)


def _model_and_training(start: Mapping[str, Any], first: Any, second: Any, keys: Sequence[str]) -> dict[str, Any]:
    name = str(start.get("name") or "")[:120]
    with first:
        values: dict[str, Any] = {
            "name": kept_text("Run name", name, "name", 120, "Display name; any text. Key: name.")
        }
    with second:
        values |= config_grid(["model.name"], start, 1)
    model = values["model.name"]
    if isinstance(model, str) and model.startswith((".", "~")):
        values["model.name"] = str(from_where_it_started(model))
    note(form_model.model_caption(str(model or form_model.config_field("model.name").default)))
    with st.expander("Find a model on the hub", icon=":material/search:"):
        hub_search.pick("model", field_key(form_model.config_field("model.name"), start))
    values |= config_grid(keys, start, len(keys))
    with st.expander("More training, adapter and logging settings", icon=":material/tune:"):
        for more in (form_model.MORE_TRAINING, form_model.MORE_ADAPTER, form_model.RECORDING):
            values |= config_grid(more, start, 4)
    return values


def pick_strategy(strategies: Mapping[str, Mapping[str, Any]], start: Mapping[str, Any]) -> Mapping[str, Any]:
    """Draw the choice of the strategy and return it."""
    usual = start.get("strategy.name", form_model.config_field("strategy.name").default)
    first = usual if usual in strategies else next(iter(strategies))
    return strategies[choose("strategy", "Strategy", list(strategies), first)]


def how_capacity_is_spent(strategy: Mapping[str, Any], start: Mapping[str, Any]) -> dict[str, Any]:
    """Say what a strategy does, draw its own fields and return their values."""
    note(strategy.get("summary", ""))
    note(f"Cost: {strategy.get('cost') or 'none'}. Fidelity: {strategy.get('fidelity', '?')}.")
    with st.expander(f"Settings of {strategy['name']}", icon=":material/tune:"):
        return {"strategy.name": strategy["name"]} | field_grid(form_model.strategy_fields(strategy), start)


def start_button(configs: Sequence[Mapping[str, Any]], missing: str = "") -> None:
    """Draw the button that starts runs, and its result; a double click starts each once.

    Args:
        configs: the configurations, one a run.
        missing: what has to be given first, in a sentence; the button waits for it.
    """
    if is_read_only():
        say_read_only()
        return
    token = st.session_state.setdefault("launch_token", secrets.token_hex(8))
    label = "Start" if len(configs) == 1 else f"Start {len(configs)} runs"
    pressed = st.button(
        label,
        type="primary",
        icon=":material/rocket_launch:",
        key="start",
        disabled=bool(missing),
        help=missing or None,
    )
    if pressed:
        st.session_state["launched"] = []
        try:
            with st.spinner("Putting the run into the queue; the first launch may download the model"):
                for number, config in enumerate(configs):  # the same but for the seed: one check stands for all
                    handle = start(config, runs_dir(), key=launch_key(token, config), checked=number > 0)
                    st.session_state["launched"].append(handle.id)
        except (DynloraError, OSError) as error:
            st.error(refusal(error))
        else:
            st.toast(queued_words(len(configs)), icon=":material/check:")


def launched() -> list[str]:
    """Return the ids of the runs that the last press of the button started."""
    return list(st.session_state.get("launched", []))


def forget_launched() -> None:
    """Let the same form start another run."""
    st.session_state["launch_token"] = secrets.token_hex(8)
    st.session_state["launched"] = []


def in_the_queue() -> tuple[int, int]:
    """Return how many runs of the runs folder are training, and how many wait."""
    return in_queue(runs_dir())


def show_command(configs: Sequence[Mapping[str, Any]]) -> None:
    """Draw the commands and the file that start the same runs."""
    with card("Command line", "command"):
        left, right = st.columns([3, 2])
        commands = [form_model.command(config, str(runs_dir())) for config in configs]
        left.code("\n".join(commands), language="bash", wrap_lines=True)
        right.code(yaml_text(configs[0]), language="yaml", wrap_lines=True)
        if len(configs) > 1:
            note(f"The file is for the first of {len(configs)} runs. The other runs differ only in the seed.")
