"""Runs of other kinds than training on their page: picked, started from a form, watched; each kind brings its parts."""

from __future__ import annotations

import math
import shlex
import typing
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import streamlit as st
from pydantic.fields import FieldInfo

from dynlora.analysis.run_summary import ACTIVE
from dynlora.config import Setting
from dynlora.errors import DynloraError
from dynlora.jobs.launch import RunHandle
from dynlora.jobs.quick_launch import enqueue_kind
from dynlora.kinds.named_runs import RunField, named_run, run_fields
from dynlora.kinds.run_kind import RunKind, kind_of_run, registry
from dynlora.kinds.settings import FormField, KindSettings, marker
from dynlora.store import queries
from dynlora.store.schema import command_text
from dynlora.store.summary import RunSummary
from dynlora.text import plural, sentence_case
from dynlora.viz.kit.panel import RunView
from dynlora.viz.report.button import report_button
from dynlora.viz.run.button import adapter_button, export_buttons
from dynlora.viz.ui import cached_queries
from dynlora.viz.ui.cards import badge, card, command_popover, in_row, note, status_line, table, titled
from dynlora.viz.ui.frame import enter
from dynlora.viz.ui.live import announce, guarded
from dynlora.viz.ui.panel_cards import conclusion, panel_cards, pick
from dynlora.viz.ui.run_actions import queued_once, run_buttons
from dynlora.viz.ui.run_picker import (
    Chosen,
    find_run,
    is_read_only,
    kinds_of_page,
    link,
    list_all,
    pick_run,
    run_labels,
    runs_dir,
)


@dataclass(frozen=True)
class KindPage:
    """The page of a kind of run, and the form on it that starts one.

    Attributes:
        name: of the page, that of one kind where it has a page of its own. Widgets' keys begin with it.
        noun: what one of its runs is called; its name without one.
    """

    name: str
    noun: str = ""

    @property
    def title(self) -> str:
        """What its runs are called on the page."""
        return sentence_case(self.noun or self.name)

    @property
    def kinds(self) -> list[RunKind]:
        """The kinds that the page shows, that of its own name first."""
        return [registry()[name] for name in sorted(kinds_of_page(self.name), key=lambda name: name != self.name)]

    # --- the page

    def picked(self, form: Callable[..., None]) -> tuple[Chosen, bool]:
        """Return the run of the page and whether it is at work; where there is none, draw the form and end the page."""
        enter()
        if list_all(kinds_of_page(self.name)).empty and "run" not in st.query_params:
            titled(self.title)
            form(self, is_open=True)
            st.stop()
        run = pick_run(self.title, page=self.name)
        with guarded():
            return run, queries.run_summary(run.folder).status in ACTIVE

    def draw(self, run: Chosen, *, was_active: bool) -> None:
        """Draw all that the kind of a run declares: the head, the conclusion with what to do next, and the panels."""
        summary = cached_queries.live_summary(run.folder, was_active=was_active)
        kind = kind_of_run(run.folder)
        result = kind.follow(run.folder) if was_active else cached_queries.ask(kind.read, run.folder)
        done = kind.done.format(step=summary.step, total=summary.max_steps)
        self._head(run, summary, kind.headline(result), done)
        place, choice = st.container(), kind.choice(result)
        chosen = {} if choice is None else {choice.name: pick(choice)}
        with place:
            step = summary.step
            words = kind.progress(result, step, chosen) if was_active else kind.conclusion(result, chosen)
            with conclusion(words.text, words.basis):
                for name, frame in kind.tables(result).items():
                    table(frame, name)
                if any((run.folder / name).is_dir() for name in kind.models):
                    _next_steps(kind, run)
        panel_cards(kind.panels, RunView(run.folder, result, cached_queries.CachedQueries(), chosen))

    def _head(self, run: Chosen, summary: RunSummary, about: str, done: str) -> None:
        """Draw what the run is, how far it is, its buttons, and what is wrong with it."""
        name = summary.name
        titled(name if self.noun or name.lower().startswith(self.name) else f"{self.title}: {name}", about)
        with in_row(f"{self.name}-head"):
            badge(summary.status)
            st.caption(done, width="content")
            run_buttons(run, summary.status)
            report_button([run])
        status_line(summary)

    # --- the form

    @contextmanager
    def form(self, *, is_open: bool) -> Iterator[None]:
        """Draw what is around the form; the block draws what is in it.

        Args:
            is_open: whether it is shown without a click.
        """
        name, start = f"New {self.noun or self.name}", self.kinds[0].form
        with st.expander(name, expanded=is_open, icon=":material/add:"), card(name, f"{self.name}-new"):
            for words in filter(None, (start.purpose, start.evidence)):
                note(words)
            yield

    def start(
        self,
        label: str,
        settings: Mapping[str, Any],
        queue: Callable[[str], RunHandle],
        caption: str,
        command: str,
        *,
        is_ready: bool = True,
    ) -> None:
        """Draw the last row of the form: the button that queues the run and opens it, a line, and the command.

        Args:
            label: of the button.
            settings: as plain values; the same ones are queued once.
            queue: puts the run into the queue under a key; a refusal is said on the page.
            caption: what the run will take, or what is missing.
            command: does the same.
            is_ready: whether nothing is missing.
        """
        with in_row(f"{self.name}-actions"):
            pressed = st.button(
                label, type="primary", icon=":material/play_arrow:", key=f"{self.name}-begin", disabled=not is_ready
            )
            if pressed and (made := queued_once(self.name, settings, queue)) is not None:
                announce(f"{self.title} queued")
                st.switch_page(f"pages/{self.name}.py", query_params={"run": made.id})
            note(caption)
            command_popover(command, f"{self.name}-command")


def _next_steps(kind: RunKind, run: Chosen) -> None:
    """Draw where the model of a run is tried, what takes it away, and the command that uses it."""
    if kind.trial is not None and kind.has_model(run.folder):
        link("pages/playground.py", kind.trial.label, **kind.trial.address(run.id))
    if "merged" in kind.formats:
        export_buttons(run)
    elif kind.formats:
        adapter_button(run)
    if command := kind.usage(run.id, run.folder.parent):
        command_popover(command, f"{kind.name}-usage")


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
        if isinstance(value, list) and marker(fields[name], RunField):
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
        if Setting.of(name, info).type == "tuple":
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
    return sources if Setting.of(name, _settings(kind).model_fields[name]).type == "tuple" else sources[0]


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
    hint, setting = _hint(info), Setting.of(name, info)
    words = " ".join(WORDS.get(word, word) for word in name.split("_"))
    label, start = hint.label or sentence_case(words), _plain(preset.get(name, setting.default))
    options: dict[str, Any] = {"key": f"{kind.name}-{name}", "help": setting.help}
    if name in preset:
        options["key"] += f"-{start}"
    if hint.choices:
        return _plain(hint.choices[column.selectbox(label, list(hint.choices), **options)])
    if setting.type == "bool":
        return column.toggle(label, start, **options)
    if setting.choices:
        return column.selectbox(label, setting.choices, index=setting.choices.index(start), **options)
    if setting.type in ("int", "float"):
        return _number(setting, start, lambda **numbers: column.number_input(label, **numbers, **options))
    if setting.type == "tuple":
        text = column.text_input(label, _typed(start), placeholder="empty", **options)
        return _numbers(text)
    return column.text_input(label, start or "", max_chars=500, **options).strip() or None


def _number(setting: Setting, start: Any, draw: Any) -> Any:
    """Draw a number within its bounds; empty where none is needed."""
    kind = int if setting.type == "int" else float
    low, high = (None if bound is None else kind(bound) for bound in (setting.low, setting.high))
    if kind is int:
        return draw(value=start, step=1, min_value=low, max_value=high)
    step = 10.0 ** math.floor(math.log10(start)) / 2 if start else 0.1
    return draw(value=start, step=step, format="%g", min_value=low, max_value=high)


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
    return enqueue_kind(_settings(kind).parse(values), runs_dir(), key=key)
