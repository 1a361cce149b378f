"""Forms of runs are made of their settings: each setting has a widget, and the command of a form says the same."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dynlora.cli.decode import settings_of
from dynlora.cli.main import main
from dynlora.config import Setting
from dynlora.kinds.named_runs import RunField, run_fields
from dynlora.kinds.run_kind import kind_of_run, registry
from dynlora.kinds.settings import marker
from dynlora.viz import kinds
from tests.kinds.decode.written import written_decode
from tests.kinds.distil.written import written_distil
from tests.kinds.merge.written import written_merge
from tests.kinds.recycle.written import written_recycle
from tests.kinds.test_settings import trained
from tests.pages.app import charts, open_page, plain

KINDS = [name for name, kind in registry().items() if kind.page != "run"]


def others(name: str) -> Iterator[tuple[str, Any]]:
    """Yield each setting of a kind that a form offers, with another value than its default; no runs."""
    for setting, info in registry()[name].settings.model_fields.items():
        declared = Setting.of(setting, info)
        if marker(info, RunField) or not kinds._hint(info).is_offered:
            continue
        if declared.choices:
            yield setting, next(one for one in declared.choices if one != info.default)
        elif declared.type == "tuple":
            yield setting, [2] if setting == "shots" else [0.25, 0.5]
        elif declared.type == "bool":
            yield setting, not info.default
        elif declared.type == "int":
            yield setting, (info.default or 20) + 1
        else:
            yield setting, 0.25 if declared.type == "float" else "some name"


@pytest.mark.parametrize("name", KINDS)
def test_the_command_of_a_form_has_an_option_for_each_setting(name: str, runs_dir: Path) -> None:
    kind = registry()[name]
    picked = {
        setting: ["a", "b"] if Setting.of(setting, kind.settings.model_fields[setting]).type == "tuple" else setting
        for setting in run_fields(kind.settings)
    }
    for setting, value in others(name):
        _, command, *arguments = shlex.split(kinds.command(kind, {**picked, setting: value}))
        options = main.commands[command].make_context(command, arguments).params
        read: Any = getattr(settings_of(options), setting) if name == "decode" else options[setting]
        assert kinds._typed(read) == kinds._typed(value), setting
        assert options["runs_dir"] == runs_dir


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
    widgets = [*app.selectbox, *app.multiselect, *app.number_input, *app.text_input, *app.toggle]
    keys = {str(widget.key) for widget in widgets}
    missing = [setting for setting, _ in others(name) if not any(key.startswith(f"{name}-{setting}") for key in keys)]
    assert missing == []


@pytest.mark.parametrize(
    ("write", "given", "drawn"),
    [
        (written_decode, {}, 4),
        (written_recycle, {}, 6),
        (written_distil, {}, 3),
        (written_merge, {}, 2),
        (written_decode, {"state": "failed"}, None),
        (written_recycle, {"state": "stopped", "until": 2}, None),
        (written_merge, {"state": "stopped", "until": 4}, None),
    ],
)
def test_a_run_begins_with_its_conclusion(
    write: Callable[..., Path], given: dict[str, Any], drawn: int | None, runs_dir: Path
) -> None:
    folder = write(runs_dir, **given)
    kind = kind_of_run(folder)
    app = open_page(kind.page, run=folder.name)
    assert kind.conclusion(kind.read(folder)).text in plain(app)
    assert drawn is None or len(charts(app)) == drawn
