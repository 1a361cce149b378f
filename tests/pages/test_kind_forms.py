"""Forms of runs are made of their settings: each setting has a widget, and the command of a form says the same."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest

from dynlora.cli.decode import rsd, settings_of
from dynlora.cli.main import main
from dynlora.kinds.named_runs import RunField, run_fields
from dynlora.kinds.run_kind import registry
from dynlora.kinds.settings import annotation_of, is_several, marker
from dynlora.viz import kinds
from tests.kinds.test_settings import trained
from tests.pages.app import open_page

KINDS = [name for name, kind in registry().items() if kind.page != "run"]


def others(name: str) -> Iterator[tuple[str, Any]]:
    """Yield each setting of a kind that a form offers, with another value than its default; no runs."""
    for setting, info in registry()[name].settings.model_fields.items():
        annotation = annotation_of(info)
        if marker(info, RunField) or not kinds._hint(info).is_offered:
            continue
        if get_origin(annotation) is Literal:
            yield setting, next(one for one in get_args(annotation) if one != info.default)
        elif get_origin(annotation) is tuple:
            yield setting, [2] if setting == "shots" else [0.25, 0.5]
        elif annotation is bool:
            yield setting, not info.default
        elif annotation is int:
            yield setting, (info.default or 20) + 1
        else:
            yield setting, 0.25 if annotation is float else "some name"


@pytest.mark.parametrize("name", KINDS)
def test_the_command_of_a_form_has_an_option_for_each_setting(name: str, runs_dir: Path) -> None:
    kind = registry()[name]
    picked = {
        setting: ["a", "b"] if is_several(kind.settings.model_fields[setting]) else setting
        for setting in run_fields(kind.settings)
    }
    for setting, value in others(name):
        _, command, *arguments = shlex.split(kinds.command(kind, {**picked, setting: value}))
        if name == "decode":
            read: Any = getattr(settings_of(rsd.make_context(command, arguments).params), setting)
        else:
            read = main.commands[command].make_context(command, arguments).params[setting]
        assert kinds._typed(read) == kinds._typed(value), setting


@pytest.mark.parametrize(
    ("name", "task"),
    [("decode", "causal_lm"), ("recycle", "classification"), ("distil", "causal_lm"), ("merge", "regression")],
)
def test_each_setting_of_a_kind_has_a_widget(name: str, task: str, runs_dir: Path) -> None:
    kinds._fit.clear()
    kind = registry()[name]
    runs = [trained(runs_dir, task=task, model="minilm", labels=["a", "b", "c"]) for _ in range(2)]
    app = open_page(kind.page)
    if name == "merge":
        way: Any = app.get("button_group")[0]
        way.set_value(kind.form.way).run()
    if name == "distil":
        app.multiselect(key="recycle-teachers").set_value(runs).run()
    assert not app.exception
    widgets = [*app.selectbox, *app.multiselect, *app.number_input, *app.text_input, *app.toggle]
    keys = {str(widget.key) for widget in widgets}
    missing = [setting for setting, _ in others(name) if not any(key.startswith(f"{name}-{setting}") for key in keys)]
    assert missing == []
