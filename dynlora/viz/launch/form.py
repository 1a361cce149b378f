"""The launch form's widgets: one per field of the configuration's schema, and the search of the hub."""

from __future__ import annotations

import math
import secrets
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import streamlit as st

from dynlora.analysis import run_summary
from dynlora.analysis.seed_groups import launch_key
from dynlora.assets import hub
from dynlora.assets.hub import Hit, Kind
from dynlora.config_files import yaml_text
from dynlora.errors import DynloraError
from dynlora.jobs.launch import in_queue, is_alive
from dynlora.jobs.quick_launch import start
from dynlora.store import queries
from dynlora.store.schema import run_folder
from dynlora.store.summary import RunSummary
from dynlora.text import markdown_text, one_line
from dynlora.viz.launch import form_model
from dynlora.viz.launch.form_model import Field
from dynlora.viz.ui import live, url_state
from dynlora.viz.ui.cards import card, note
from dynlora.viz.ui.frame import say_read_only
from dynlora.viz.ui.live import refusal
from dynlora.viz.ui.run_actions import queued_words
from dynlora.viz.ui.run_picker import is_read_only, link, runs_dir
from dynlora.viz.ui.url_state import choose, from_where_it_started

WORDS = {"model": "models", "dataset": "data sets"}


def pick(kind: Kind, field: str) -> None:
    """Draw the search; what is chosen is written into a field of the form.

    Args:
        kind: model or dataset.
        field: key of the text field that takes the id of a hit.
    """
    if is_read_only():
        return
    if hub.is_off():
        note("The search of the hub is off, because HF_HUB_OFFLINE is set.")
        return
    left, right = st.columns([4, 1], vertical_alignment="bottom")
    about = (
        f"Words of the id, such as sentiment. They are sent to the hub when Search is pressed. It lists {WORDS[kind]}"
    )
    words = left.text_input(
        f"Search {WORDS[kind]} of the hub", key=f"hub-words-{kind}", max_chars=100, help=f"{about} by downloads."
    ).strip()
    pressed = right.button("Search", key=f"hub-search-{kind}", icon=":material/search:", width="stretch")
    if pressed and words:
        with st.spinner("Asking the hub"):
            st.session_state[_found(kind)] = _asked(kind, words)
        st.session_state.pop(_chosen(kind), None)
    _show(kind, field)


def _asked(kind: Kind, words: str) -> tuple[str, list[Hit] | str]:
    """Return the words with their hits, or with the sentence of what went wrong."""
    try:
        return words, hub.search(kind, words)
    except DynloraError as error:
        return words, str(error)


def _show(kind: Kind, field: str) -> None:
    """Draw what the last search found."""
    words, hits = st.session_state.get(_found(kind), ("", []))
    if isinstance(hits, str):
        st.error(refusal(DynloraError(hits)))
    elif hits:
        downloads = {hit.id: hit.downloads for hit in hits}
        st.selectbox(
            f"Found for “{one_line(words, 40)}”",
            list(downloads),
            index=None,
            key=_chosen(kind),
            placeholder=f"Choose one of {len(hits)}",
            on_change=_use,
            args=(kind, field),
            format_func=lambda name: f"{name} ({downloads.get(name, 0):,} downloads)",
        )
    elif words:
        note(f"The hub has no {WORDS[kind]} with “{one_line(words, 40)}” in their id. Try fewer words.")


def _use(kind: Kind, field: str) -> None:
    """Write the chosen id into the field of the form."""
    chosen = st.session_state.get(_chosen(kind))
    if chosen is not None:
        st.session_state[field] = chosen


def _found(kind: Kind) -> str:
    return f"hub-found-{kind}"


def _chosen(kind: Kind) -> str:
    return f"hub-chosen-{kind}"


def field_key(field: Field, start: Mapping[str, Any]) -> str:
    """Return the key of the widget of a field; another start has another one."""
    return f"field-{field.name}-{str(field.fitting(start.get(field.name, field.default)))[:200]}"


NOTHING = ""
"""The option of a field that stays empty."""


def field_widget(field: Field, start: Mapping[str, Any]) -> Any:
    """Draw the widget of a field and return its value; None when it is empty or at its default.

    Args:
        field: the field.
        start: starting values by key; another start begins a new widget.
    """
    value = field.fitting(start.get(field.name, field.default))
    key, label = field_key(field, start), field.label  # the label is also read aloud, so no escapes
    draw = partial(url_state.kept, key, help=markdown_text(field.about, 600))
    entered: Any
    if field.choices and field.type == "tuple":
        begin = list(value or ())
        entered = draw(st.multiselect, begin, label, field.choices, placeholder=field.empty) or None
    elif field.choices:
        options = [NOTHING, *field.choices] if field.optional else list(field.choices)
        begin = NOTHING if value is None else str(value)
        entered = draw(st.selectbox, begin, label, options, format_func=lambda one: one or field.empty) or None
    elif field.type == "bool":
        entered = draw(st.checkbox, bool(value), label)
    elif field.type in ("int", "float"):
        entered = _number(field, value, draw)
    else:
        begin = (", ".join(value) if isinstance(value, tuple) else str(value or ""))[:500]
        about_empty = field.empty if field.optional else None
        entered = draw(st.text_input, begin, label, max_chars=500, placeholder=about_empty).strip() or None
        if field.type == "tuple" and entered:
            entered = [part.strip() for part in entered.split(",") if part.strip()] or None
    return None if entered == field.default else entered


def _number(field: Field, start: Any, draw: Callable[..., Any]) -> Any:
    kind = int if field.type == "int" else float
    low, high = (None if bound is None else kind(bound) for bound in (field.low, field.high))
    return draw(
        st.number_input,
        None if start is None else kind(start),
        field.label,
        min_value=low,
        max_value=high,
        value=None,
        step=1 if kind is int else _tenth(start),
        format=None if kind is int else "%.6g",
        placeholder=field.empty if field.optional else "",
    )


def _tenth(value: float | None) -> float:
    """Return a step that suits a number's size: 0.0001 for 0.001."""
    return 0.01 if not value else 10.0 ** (math.floor(math.log10(abs(value))) - 1)


def kept_text(label: str, start: str, name: str, longest: int, about: str) -> str:
    """Draw a field of text that is no field of the configuration, and return what it holds, without space around."""
    return url_state.kept(f"{name}-{start}", st.text_input, start, label, max_chars=longest, help=about).strip()


def field_grid(fields: Sequence[Field], start: Mapping[str, Any], columns: int = 3) -> dict[str, Any]:
    """Draw fields side by side and return what was entered, by key."""
    values = {}
    for first in range(0, len(fields), columns):
        places = st.columns(columns, vertical_alignment="bottom")
        for place, field in zip(places, fields[first : first + columns], strict=False):
            with place:
                values[field.name] = field_widget(field, start)
    return values


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
        pick("model", field_key(form_model.config_field("model.name"), start))
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
        between = " \\\n  " if len(configs) == 1 else " "  # a browser would break a line within an option
        commands = [form_model.command(config, str(runs_dir()), between) for config in configs]
        left.code("\n".join(commands), language="bash", wrap_lines=True)
        right.code(yaml_text(configs[0]), language="yaml", wrap_lines=True)
        if len(configs) > 1:
            note(f"The file is for the first of {len(configs)} runs. The other runs differ only in the seed.")


EVERY_S = 1.0
"""Seconds between two looks at runs that have not made a step yet."""


def show_launched() -> None:
    """Say which runs the last press of the button started and what they do, and let the form start another."""
    ids = launched()
    if not ids:
        return
    first = _summaries(ids)
    waits = any(_is_coming(summary) for _, summary in first)
    read = live.reused(first, lambda: _summaries(ids))

    @live.following(EVERY_S, active=waits)
    def show() -> None:
        summaries = read()
        for run_id, summary in summaries:
            _line(run_id, summary)
        if waits and not any(_is_coming(summary) for _, summary in summaries):
            st.rerun()  # nothing to wait for any more

    show()
    st.button("Allow another run with these settings", on_click=forget_launched)


def _summaries(ids: Sequence[str]) -> list[tuple[str, RunSummary | None]]:
    return [(run_id, _summary(run_id)) for run_id in ids]


def _summary(run_id: str) -> RunSummary | None:
    """Return a run as it is, None when it cannot be read, as for one that was deleted."""
    try:
        return queries.run_summary(run_folder(runs_dir(), run_id))
    except DynloraError:
        return None


def _is_coming(summary: RunSummary | None) -> bool:
    """Say whether a run has still to make its first step."""
    return summary is not None and summary.status in run_summary.ACTIVE and not summary.step


def _line(run_id: str, summary: RunSummary | None) -> None:
    """Draw one run: its id, what it does, why it failed, and the link to its page."""
    with st.container(horizontal=True, vertical_alignment="center", key=f"launched-{run_id}"):
        if summary is not None and summary.status == "failed":
            why = markdown_text(summary.error or "the run failed", 2000)
            st.error(f"{run_id} was refused before its first step: {why}" if not summary.step else f"{run_id}: {why}")
        else:
            st.success(f"Started as {run_id}. {_doing(run_id, summary)}".strip(), width="stretch")
        link("pages/run.py", "Open run", run=run_id)


def _doing(run_id: str, summary: RunSummary | None) -> str:
    """Return what a run does before its first step, in a sentence; empty when it has made one."""
    if summary is None or not _is_coming(summary):
        return ""
    if summary.status == "queued":
        return "Its process is starting." if is_alive(runs_dir(), run_id) else "It waits in the queue."
    phase = run_summary.phase(summary, lambda: queries.logs_frame(run_folder(runs_dir(), run_id), 20))
    return f"{markdown_text(phase)}." if phase else ""
