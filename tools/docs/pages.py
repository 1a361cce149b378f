"""Pages of the site that are made from the code, so that they are true: methods, command line, settings, Python."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import click

import dynlora
from dynlora import strategies
from dynlora.cli.main import main
from dynlora.config import RunConfig, section_of
from dynlora.custom_loop.attached import Attached
from dynlora.engine.strategy import Strategy
from dynlora.integrations.transformers import RecordCallback
from dynlora.notebook.comparison import Comparison, ComparisonPlots
from dynlora.notebook.figure import PageFigure, Replay
from dynlora.notebook.plots import Plots
from dynlora.notebook.run import Run
from dynlora.viz import methods as methods_model
from tools.docs import measured

ROOT = Path(__file__).resolve().parents[2]
NOTES = ROOT / "docs" / "methods"
COPIED = {"SECURITY.md": "SECURITY.md", "CONTRIBUTING.md": "CONTRIBUTING.md", "CHANGELOG.md": "CHANGELOG.md"}
"""Pages of the site that lie at the top of the repository."""

MEASURED = (
    "**Held-out loss minus LoRA's**, in nats, at equal budget (`minilm`, rank 4, the learning rate that each method "
    "chose on `sentiment4`):"
)
WHAT_NEXT = (
    "To compare it on your own data, follow [Compare](../guides/compare.md). All methods are in "
    "[one table](../METHODS.md#results)."
)

_LIMITS = {"ge": "≥ {}", "gt": "> {}", "le": "≤ {}", "lt": "< {}"}


def generated() -> dict[str, str]:
    """Return every page made from code or copied from the top of the repository, as Markdown by path."""
    pages = {path: (ROOT / source).read_text("utf-8").replace("](docs/", "](") for path, source in COPIED.items()}
    pages |= {f"methods/{name}.md": method(strategies.describe(name)) for name in strategies.registry()}
    return pages | {
        "reference/methods.md": overview([strategies.describe(name) for name in strategies.registry()]),
        "reference/cli.md": command_line(),
        "reference/config.md": settings(),
        "reference/python.md": python(),
    }


def method(described: Mapping[str, Any]) -> str:
    """Return the page of one method: what it does, its formula and settings, then our notes on it."""
    notes = NOTES / f"{described['name']}.md"
    parts = [f"# {described['title']}", described["summary"]]
    if described["formula"]:
        parts.append(f"$$\n{described['formula']}\n$$")
    if measured_here := measured.against_lora(described["name"]):
        parts += [MEASURED, "\n".join(f"- {line}" for line in measured_here), WHAT_NEXT]
    parts.append(table(("property", "value"), _facts(described)))
    parts += [_flat(paragraph) for paragraph in methods_model.how(described)]
    if departs := methods_model.departs(described):
        parts.append(f"**Differences from the source.** {_flat(departs)}")
    parts += [
        "## Settings",
        f"Set them as `--set strategy.KEY=VALUE`. Start: `dynlora train --set {_named(described)}`.",
    ]
    parts.append(table(("key", "default", "values", "meaning"), map(_setting, described["fields"])))
    if described["signals"]:
        parts += ["## Recorded signals", table(("name", "unit", "meaning"), _signals(described["signals"]))]
    if notes.is_file():
        parts.append(notes.read_text("utf-8").strip())
    parts.append("[All methods](../METHODS.md) · [Results of every method](../METHODS.md#results)")
    return "\n\n".join(parts) + "\n"


def _facts(described: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield what is known of a method in a word or two; its paper is a link."""
    for name, value in methods_model.facts(described):
        link = methods_model.paper_link(described) if name == "Paper" else None
        yield name, f"[{value}]({link})" if link else value


def overview(described: Sequence[Mapping[str, Any]]) -> str:
    """Return the table of all methods."""
    rows = [
        (
            f"[{row['title']}](../methods/{row['name']}.md)",
            f"`{row['name']}`",
            row["fidelity"],
            row["cost"],
            row["paper"],
        )
        for row in described
    ]
    head = "# All methods\n\nEvery value of `strategy.name`. Each name links to its page."
    return f"{head}\n\n{table(('method', 'name', 'fidelity', 'cost', 'paper'), rows)}\n"


def command_line() -> str:
    """Return the page of the command line: every command with its options."""
    context = click.Context(main, info_name="dynlora")
    names = main.list_commands(context)
    parts = [
        "# Command line",
        "Exit codes: 0 done, 1 failed, 2 bad input (one sentence on stderr), 130 or 143 stopped with the state saved. "
        "`--json` prints one JSON document on stdout.",
        " · ".join(f"[`{name}`](#{name})" for name in names),
    ]
    for name in names:
        command = main.get_command(context, name)
        if command is not None:
            parts += _command(name, command, context)
    return "\n\n".join(parts) + "\n"


def _command(name: str, command: click.Command, parent: click.Context) -> Iterator[str]:
    """Yield the parts of one command's section."""
    context = click.Context(command, info_name=name, parent=parent)
    usage = " ".join(command.collect_usage_pieces(context))
    yield f"## {name}"
    yield inspect.cleandoc(command.help or "").replace("\b", "")
    yield f"```\ndynlora {name} {usage}\n```"
    records = [parameter.get_help_record(context) for parameter in command.params]
    if rows := [(f"`{record[0]}`", _flat(record[1])) for record in records if record]:
        yield table(("option", "meaning"), rows)
    if isinstance(command, click.Group):
        for inner in command.list_commands(context):
            subcommand = command.get_command(context, inner)
            if subcommand is not None:
                yield from _command(f"{name} {inner}", subcommand, parent)


def settings() -> str:
    """Return the page of the configuration: every key with default, range and meaning."""
    parts = [
        "# Configuration",
        "A run is described by these keys. Give them as `--set key=value`, in a YAML file (`--config`), or as a "
        "dictionary to `dynlora.train`. An unknown key is refused with the nearest valid one. The keys of a method "
        "are on [its page](../METHODS.md).",
        "## Run",
        table(("key", "default", "values", "meaning"), _keys("", RunConfig.model_json_schema()["properties"])),
    ]
    for name in RunConfig.model_fields:
        section = section_of(name)
        if section is not None:
            rows = _keys(f"{name}.", section.model_json_schema()["properties"])
            parts += [f"## {name}", inspect.cleandoc(section.__doc__ or "")]
            parts.append(table(("key", "default", "values", "meaning"), rows))
    return "\n\n".join(parts) + "\n"


def _keys(prefix: str, properties: Mapping[str, Any]) -> Iterator[tuple[str, str, str, str]]:
    """Yield one row per plain key of a section."""
    for key, schema in properties.items():
        if prefix or section_of(key) is None:
            yield f"`{prefix}{key}`", _default(schema.get("default")), _values(schema), schema.get("description", "")


def _values(schema: Mapping[str, Any]) -> str:
    """Return the type and range of one key, from its JSON schema."""
    options = schema.get("anyOf", [schema])
    kinds = [option for option in options if option.get("type") != "null"]
    return "; ".join(filter(None, map(_kind, kinds)))


def _kind(option: Mapping[str, Any]) -> str:
    """Return one type of a JSON schema with its limits."""
    if "enum" in option:
        return ", ".join(f"`{value}`" for value in option["enum"])
    words = {"integer": "whole number", "number": "number", "string": "text", "array": "list", "boolean": "true, false"}
    limits = {"minimum": "≥ {}", "exclusiveMinimum": "> {}", "maximum": "≤ {}", "exclusiveMaximum": "< {}"}
    limit_texts = [text.format(option[key]) for key, text in limits.items() if key in option]
    return ", ".join([words.get(option.get("type", ""), ""), *limit_texts])


PUBLIC_CLASSES = (Run, Comparison, Attached, Plots, ComparisonPlots, PageFigure, Replay, RecordCallback)
"""What the public functions return and hand on, and the callback of the Trainer."""

PLUG_INS = {
    "dynlora.engine.strategy": ("Strategy", "Step", "setting", "state"),
    "dynlora.engine.edits": ("Edit", "Drop", "Grow", "Move"),
    "dynlora.engine.model.adapters": ("Adapters",),
    "dynlora.engine.allocation.scores": ("saliency",),
    "dynlora.errors": ("ConfigError", "DataError"),
    "dynlora.tasks": ("LabelColumn", "LabelledTask"),
    "dynlora.tasks.classification": ("Classification",),
    "dynlora.tasks.regression": ("Regression",),
    "dynlora.kinds.run_kind": ("RunKind", "Conclusion", "StartForm"),
    "dynlora.kinds.settings": ("KindSettings", "FormField", "stages_of"),
    "dynlora.kinds.named_runs": ("NamedRun", "RunField", "named_runs"),
    "dynlora.training.stepwise": ("Stepwise", "run_steps"),
    "dynlora.training.folder_work": ("Outcome",),
    "dynlora.training.progress_stream": ("StopRequest",),
    "dynlora.inference.session": ("load_run",),
    "dynlora.engine.recorder": ("Recorder",),
    "dynlora.store.writer": ("RunWriter",),
    "dynlora.store.reader": ("RunReader",),
    "dynlora.store.meta": ("finite", "short_text", "table", "text"),
    "dynlora.text": ("minus", "plotly_text", "short_path"),
    "dynlora.analysis.run_reading": ("RunReading",),
    "dynlora.viz.kit.panel": ("Panel", "RunView"),
    "dynlora.viz.kit.theme": ("Palette", "figure"),
}
"""What a plug-in imports, by module."""

POLICY = """\
## What is public

Public are the names on this page, the commands and their options, the keys of the configuration, the addresses of
pages, the [run store](../STORE.md), and the entry points of methods, tasks with labels, figures and kinds of run.
Everything else may change in any version.

- A public name that is renamed or removed works for two more minor versions, and for six months at least.
- Meanwhile it says what to use: a `DeprecationWarning` in Python, a line in the log for a setting or a command. The
  [changelog](../CHANGELOG.md) lists it under Changed.
- Before 1.0 a minor version may change a default; the changelog says so, and runs keep what they were made with.
- A run of any version can be opened by every later one.

Every public name has an example here or in `examples/`, and the tests run it. In the examples `my-bert` is the folder
of a model, `reviews` one with `train.csv` and `validation.csv`, and `trained`, `draft` and `target` are folders of
runs."""


def public() -> dict[str, Any]:
    """Return the public functions and classes, those of plug-ins left out, by name."""
    functions = {name: getattr(dynlora, name) for name in dynlora.__all__}
    return functions | {cls.__name__: cls for cls in PUBLIC_CLASSES}


def of_plug_ins() -> dict[str, Any]:
    """Return what a plug-in may import, by its whole name."""
    return {
        f"{module}.{name}": getattr(import_module(module), name) for module, names in PLUG_INS.items() for name in names
    }


def python() -> str:
    """Return the page of the public Python interface; mkdocstrings fills it in."""
    parts = [
        "# Python",
        "The public functions are loaded on first use: `import dynlora` imports neither torch nor streamlit.",
        POLICY,
    ]
    parts += [f"::: {one.__module__}.{one.__qualname__}" for one in public().values()]
    rows = [(f"`{name}`", (inspect.getdoc(one) or "").partition("\n\n")[0]) for name, one in of_plug_ins().items()]
    parts += [
        "## For plug-ins",
        "What a [package of its own](../guides/add-a-method.md#as-a-package-of-its-own) may import, as "
        "`examples/plugin/` does.",
        table(("name", "what it is"), rows),
        "## Hooks of a strategy",
        "A method is a subclass of `dynlora.engine.strategy.Strategy`, in one file; see "
        "[Add a method](../guides/add-a-method.md). Every hook has a default that does nothing.",
        table(("hook", "what it does"), _hooks(Strategy)),
    ]
    return "\n\n".join(parts) + "\n"


def _hooks(cls: type) -> Iterator[tuple[str, str]]:
    """Yield the public methods of a class: each with its signature and the first paragraph of its documentation."""
    for name, value in vars(cls).items():
        if inspect.isfunction(value) and not name.startswith("_") and value.__doc__:
            names = [parameter for parameter in inspect.signature(value).parameters if parameter != "self"]
            yield f"`{name}({', '.join(names)})`", inspect.cleandoc(value.__doc__).partition("\n\n")[0]


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table; a bar in a cell is escaped."""
    lines = [head, ["---"] * len(head), *([_flat(str(cell)).replace("|", "\\|") for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _setting(field: Mapping[str, Any]) -> tuple[str, str, str, str]:
    """Return one hyper-parameter as cells."""
    words = {"int": "whole number", "float": "number", "str": "text", "bool": "true, false"}
    limits = [text.format(field[key]) for key, text in _LIMITS.items() if field.get(key) is not None]
    choices = ", ".join(f"`{choice}`" for choice in field["choices"])
    values = choices or ", ".join([words.get(str(field["type"]), ""), *limits])
    unit = f" ({field['unit']})" if field["unit"] else ""
    return f"`{field['name']}`", _default(field["default"]), values, f"{field['help']}{unit}"


def _signals(signals: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, str, str]]:
    """Yield one row per signal that a method records of its own."""
    for name, signal in signals.items():
        yield f"`{name}`", str(signal.get("unit") or ""), str(signal.get("help") or signal.get("title") or "")


def _named(described: Mapping[str, Any]) -> str:
    """Return the setting that chooses a method."""
    return f"strategy.name={described['name']}"


def _default(value: Any) -> str:
    """Return a default as a cell."""
    if value is None:
        return "empty"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _flat(text: str) -> str:
    """Return a text on one line."""
    return re.sub(r"\s+", " ", text).strip()
