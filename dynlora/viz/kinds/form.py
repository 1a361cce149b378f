"""The form that starts a run of a kind, made of its settings: runs to pick, what is usually chosen, and the rest.

Types, limits, defaults and help are those of the settings; `kinds.settings.FormField` and `kinds.named_runs.RunField`
say what a type cannot.
"""

from __future__ import annotations

import math
import shlex
import typing
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import streamlit as st
from pydantic.fields import FieldInfo

from dynlora.errors import DynloraError
from dynlora.jobs.kinds import enqueue
from dynlora.jobs.launch import RunHandle
from dynlora.kinds.named_runs import RunField, named_run, run_fields
from dynlora.kinds.registry import registry
from dynlora.kinds.run_kind import RunKind
from dynlora.kinds.settings import FormField, KindSettings, annotation_of, is_several, marker
from dynlora.store.schema import command_text
from dynlora.text import plural, sentence_case
from dynlora.viz.kinds.view import KindPage
from dynlora.viz.ui.cards import note
from dynlora.viz.ui.run_picker import find_run, is_read_only, list_all, run_labels, runs_dir

MOST_OFFERED = 200
"""Newest finished runs that are offered."""

MOST_REFUSED = 50
"""Runs of which it is said why they cannot be used."""

COLUMNS = 3

WORDS = {"lr": "learning rate", "lora": "LoRA"}
"""Parts of the names of settings, as a person reads them."""


@dataclass(frozen=True)
class Offer:
    """A run that a setting may name.

    Attributes:
        kind: of the run that is made with it; several kinds may share a form.
        about: what a person should know of it beside its name; empty for nothing.
    """

    kind: str
    about: str


def start_form(page: KindPage, *, is_open: bool) -> None:
    """Draw the form that starts a run of the page's kinds.

    Args:
        page: with the kinds.
        is_open: whether it is shown without a click.
    """
    with page.form(is_open=is_open):
        kinds = _chosen_kinds(page)
        fields = run_fields(_settings(kinds[0]))
        runs = _usable_runs()
        offers = {name: _offers(kinds, name, runs) for name in fields}
        if len(fields) == 1:
            _say_refused(kinds[0], next(iter(fields)), runs, offers)
        if is_read_only() or not all(offers[name] or field.others for name, field in fields.items()):
            note("This dashboard is read-only." if is_read_only() else kinds[0].form.missing)
            if kinds[0].form.preparation:
                note(f"Or begin with `{command_text(*kinds[0].form.preparation, runs_dir=runs_dir())}`.")
            return
        chosen = _pick_runs(kinds[0], runs, offers)
        made = {offers[name][run].kind for name, picked in chosen.items() for run in picked if run in offers[name]}
        kind = next((one for one in kinds if one.name in made), kinds[0])
        if kind.form.remark:
            note(kind.form.remark)
        values = {name: _named(kind, name, picked) for name, picked in chosen.items()} | _other_values(kind)
        problem = _mixed(made) or _problem(kind, values)
        caption = problem or _settings(kind).parse(values).takes()
        queue = partial(_queued, kind, values)
        page.start(kind.form.button, values, queue, caption, command(kind, values), is_ready=not problem)


def command(kind: RunKind, values: Mapping[str, Any]) -> str:
    """Return the command that does the same.

    Args:
        kind: of run.
        values: settings as plain values.
    """
    fields, named, options = _settings(kind).model_fields, [], []
    for name, value in values.items():
        if is_several(fields[name]) and marker(fields[name], RunField):
            named += value
            continue
        option = f"--{(_hint(fields[name]).option or name).replace('_', '-')}"
        options.append(option if value is True else f"{option}={_typed(value)}")
    return shlex.join(["dynlora", kind.command, *named, *options, "--runs-dir", str(runs_dir())])


# --- the kinds and their settings


def _chosen_kinds(page: KindPage) -> list[RunKind]:
    """Return the kinds that the form may make, that of the page first; a person chooses between ways."""
    ways: dict[str, list[RunKind]] = {}
    for kind in page.kinds:
        ways.setdefault(kind.form.way, []).append(kind)
    first = next(iter(ways))
    if len(ways) == 1:
        return ways[first]
    key = f"{page.name}-way"
    way = st.segmented_control("What is made", list(ways), default=first, key=key, label_visibility="collapsed")
    return ways[way or first]


def _settings(kind: RunKind) -> type[KindSettings]:
    return typing.cast("type[KindSettings]", kind.settings)


def _hint(info: FieldInfo) -> FormField:
    return marker(info, FormField) or FormField()


# --- runs


def _usable_runs() -> pd.DataFrame:
    """Return the newest trained runs that another run can use: those that kept an adapter when they ended."""
    runs = list_all()
    return runs[runs["status"].isin(("finished", "stopped"))].head(MOST_OFFERED)


def _offers(kinds: Sequence[RunKind], name: str, runs: pd.DataFrame) -> dict[str, Offer]:
    """Return the runs that a setting of one of the kinds may name."""
    offers: dict[str, Offer] = {}
    for kind in kinds:
        for run_id, folder, status in zip(runs["id"], runs["folder"], runs["status"], strict=True):
            about, refused = _fit(kind.name, name, str(folder), str(status))
            if not refused:
                offers.setdefault(run_id, Offer(kind.name, about))
    return offers


@st.cache_data(max_entries=2000, ttl=600, show_spinner=False)
def _fit(kind: str, name: str, folder: str, status: str) -> tuple[str, str]:
    """Return what a person should know of a run, and why a setting cannot name it; that is empty where it can."""
    field = run_fields(_settings(registry()[kind]))[name]
    try:
        run = named_run(field.role, folder, Path(folder).parent)
        field.check(run)
    except DynloraError as error:
        return "", str(error)
    return field.about(run), ""


def _say_refused(kind: RunKind, name: str, runs: pd.DataFrame, offers: Mapping[str, Mapping[str, Offer]]) -> None:
    """Draw why the other runs cannot be used."""
    rows = runs[~runs["id"].isin(list(offers[name]))].head(MOST_REFUSED)
    if rows.empty:
        return
    with st.popover(f"{plural(len(rows), 'run')} that cannot be used", type="tertiary", key=f"{kind.name}-unable"):
        for folder, status in zip(rows["folder"], rows["status"], strict=True):
            note(_fit(kind.name, name, str(folder), str(status))[1])


def _pick_runs(kind: RunKind, runs: pd.DataFrame, offers: Mapping[str, Mapping[str, Offer]]) -> dict[str, list[str]]:
    """Draw what picks runs, and return their ids, or the words that stand for no run, by the name of the setting."""
    labels, fields = run_labels(runs), run_fields(_settings(kind))
    columns = st.columns(len(fields)) if len(fields) > 1 else [st.container()]
    chosen: dict[str, list[str]] = {}
    for position, (column, (name, field)) in enumerate(zip(columns, fields.items(), strict=True)):
        words = dict(field.others) | {
            run: f"{labels[run]} ({offer.about})" if offer.about else labels[run] for run, offer in offers[name].items()
        }
        info, key, options = _settings(kind).model_fields[name], f"{kind.name}-{name}", list(words)
        label = _hint(info).label or sentence_case(name)
        if is_several(info):
            about = info.description
            chosen[name] = column.multiselect(label, options, key=key, format_func=words.__getitem__, help=about)
        else:
            first = 0 if field.others else min(position, len(options) - 1)
            about = info.description
            one = column.selectbox(label, options, index=first, key=key, format_func=words.__getitem__, help=about)
            chosen[name] = [one]
    return chosen


def _named(kind: RunKind, name: str, picked: Sequence[str]) -> Any:
    """Return picked runs as settings name them: by id, or by the folder where it is a sample."""
    others = run_fields(_settings(kind))[name].others
    sources = [one if one in others else _source_of(one) for one in picked]
    return sources if is_several(_settings(kind).model_fields[name]) else sources[0]


def _source_of(run_id: str) -> str:
    run = find_run(run_id)
    return run.id if run.is_own else str(run.folder)


# --- the other settings


def _other_values(kind: RunKind) -> dict[str, Any]:
    """Draw all other settings, and return those that differ from their defaults."""
    settings = _settings(kind)
    fields = {
        name: info
        for name, info in settings.model_fields.items()
        if marker(info, RunField) is None and _hint(info).is_offered
    }
    first = [name for name, info in fields.items() if _hint(info).label]
    columns = st.columns(COLUMNS)
    preset = _preset(kind, columns[0]) if settings.presets else {}
    values: dict[str, Any] = {}
    for position, name in enumerate(first, 1 if settings.presets else 0):
        values[name] = _drawn(kind, name, fields[name], columns[position % COLUMNS], preset)
    with st.expander("More settings", key=f"{kind.name}-more"):
        columns = st.columns(COLUMNS)
        for position, name in enumerate(name for name in fields if name not in first):
            values[name] = _drawn(kind, name, fields[name], columns[position % COLUMNS], preset)
    return {name: value for name, value in values.items() if value != _plain(fields[name].default)}


def _preset(kind: RunKind, column: Any) -> Mapping[str, Any]:
    """Draw the choice of several settings at once, and return them."""
    presets, fields = _settings(kind).presets, _settings(kind).model_fields
    usual = [name for name, one in presets.items() if all(fields[key].default == one[key] for key in one)]
    index = list(presets).index(usual[0]) if usual else 0
    return presets[column.selectbox("Effort", list(presets), index=index, key=f"{kind.name}-effort")]


def _drawn(kind: RunKind, name: str, info: FieldInfo, column: Any, preset: Mapping[str, Any]) -> Any:
    """Draw the widget of a setting and return its value as a plain one."""
    hint, annotation = _hint(info), annotation_of(info)
    words = " ".join(WORDS.get(word, word) for word in name.split("_"))
    label, start = hint.label or sentence_case(words), _plain(preset.get(name, info.default))
    options: dict[str, Any] = {"key": f"{kind.name}-{name}", "help": info.description}
    if name in preset:
        options["key"] += f"-{start}"
    if hint.choices:
        return _plain(hint.choices[column.selectbox(label, list(hint.choices), **options)])
    if annotation is bool:
        return column.toggle(label, start, **options)
    if typing.get_origin(annotation) is Literal:
        words = [*typing.get_args(annotation)]
        return column.selectbox(label, words, index=words.index(start), **options)
    if annotation in (int, float):
        return _number(annotation, info, start, lambda **numbers: column.number_input(label, **numbers, **options))
    if typing.get_origin(annotation) is tuple:
        text = column.text_input(label, _typed(start), placeholder="empty", **options)
        return _numbers(text)
    return column.text_input(label, start or "", max_chars=500, **options).strip() or None


def _number(kind: type[Any], info: FieldInfo, start: Any, draw: Any) -> Any:
    """Draw a number within its bounds; empty where none is needed."""
    bounds = {
        side: next((kind(getattr(rule, name)) for rule in info.metadata for name in names if hasattr(rule, name)), None)
        for side, names in (("min_value", ("ge", "gt")), ("max_value", ("le", "lt")))
    }
    if kind is int:
        return draw(value=start, step=1, **bounds)
    step = 10.0 ** math.floor(math.log10(start)) / 2 if start else 0.1
    return draw(value=start, step=step, format="%g", **bounds)


def _numbers(text: str) -> list[Any]:
    """Return numbers that a person typed; what is none stays text, which the settings refuse."""
    numbers: list[Any] = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        try:
            numbers.append(int(part) if part.isdecimal() else float(part))
        except ValueError:
            numbers.append(part)
    return numbers


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _typed(value: Any) -> str:
    """Return a value as a person types it."""
    if isinstance(value, list | tuple):
        return ",".join(map(_typed, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


# --- the start


def _mixed(made: Collection[str]) -> str:
    """Return that the picked runs are for different kinds of run, empty where they are for one."""
    first, *others = (registry()[name].about for name in sorted(made)) if len(made) > 1 else ("",)
    return f"Some of these runs are for {first}, others for {others[0]}: choose runs of one kind." if others else ""


def _problem(kind: RunKind, values: Mapping[str, Any]) -> str:
    """Return what keeps the run from starting, empty for nothing."""
    if missing := next((name for name in run_fields(_settings(kind)) if not values[name]), None):
        return f"Choose {missing}."
    try:
        _settings(kind).parse(values).check(runs_dir())
    except DynloraError as error:
        return str(error)
    return ""


def _queued(kind: RunKind, values: Mapping[str, Any], key: str) -> RunHandle:
    return enqueue(_settings(kind).parse(values), runs_dir(), key=key)
