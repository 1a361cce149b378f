"""Runs of every kind on the command line: their options, their work, and what is printed at its end."""

from __future__ import annotations

import signal
import sys
import typing
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal, cast

import click
from pydantic.fields import FieldInfo

from dynlora.cli.options import PathOrName, Real, Whole, check_texts, in_rows, in_runs, reports
from dynlora.discovery import declared
from dynlora.errors import RunNotFoundError
from dynlora.jobs import kinds as jobs
from dynlora.jobs import launch
from dynlora.jobs.queue import put_in_queue
from dynlora.kinds.named_runs import run_fields
from dynlora.kinds.run_kind import kind_of_run, registry
from dynlora.kinds.settings import FormField, KindSettings, annotation_of, is_several, marker
from dynlora.store.schema import command_text
from dynlora.store.summary import run_summary

Report = tuple[dict[str, Any], str, int]
"""Document, words and exit code."""


# --- options


def setting_options(
    *settings: type[KindSettings], without: tuple[str, ...] = ()
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Add an option for each setting, with its bounds, its default and its description as help.

    Args:
        settings: one kind's, or those of several kinds that one command makes: they share what has one name.
        without: settings that the command takes in another way.
    """
    names = dict.fromkeys(name for kind in settings for name in kind.model_fields if name not in without)
    options = [
        _option(name, [kind.model_fields[name] for kind in settings if name in kind.model_fields]) for name in names
    ]

    def add(function: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            function = option(function)
        return function

    return add


def _option(name: str, fields: list[FieldInfo]) -> Any:
    """Return the option of a setting that several kinds may share."""
    hint = marker(fields[0], FormField)
    flag = f"--{((hint and hint.option) or name).replace('_', '-')}"
    about = "; or: ".join(dict.fromkeys((field.description or "").rstrip(".") for field in fields))
    defaults = dict.fromkeys(_default(field) for field in fields)
    if fields[0].annotation is bool:
        return click.option(flag, name, is_flag=True, default=None, help=f"{about}.")
    words = "" if set(defaults) == {""} else f" [default: {' or '.join(defaults)}]"
    return click.option(flag, name, type=_type(fields), default=None, help=f"{about}.{words}")


def _default(field: FieldInfo) -> str:
    """Return a default as a person types it."""
    if isinstance(field.default, tuple):
        return ",".join(map(str, field.default))
    return "" if field.default is None or field.is_required() else str(field.default)


def _type(fields: list[FieldInfo]) -> Any:
    """Return the type of an option: numbers with the widest bounds, one of some words, else text."""
    annotation = annotation_of(fields[0])
    if typing.get_origin(annotation) is Literal:
        return click.Choice([str(word) for word in typing.get_args(annotation)])
    if annotation not in (int, float):
        return click.STRING
    rules = [rule for field in fields for rule in field.metadata]
    low, is_above = min(
        (getattr(rule, side), side == "gt") for rule in rules for side in ("ge", "gt") if hasattr(rule, side)
    )
    step = 1 if annotation is int else 0  # the largest number below a bound; of fractions the bound itself
    high = max(
        getattr(rule, side) - below
        for rule in rules
        for side, below in (("le", 0), ("lt", step))
        if hasattr(rule, side)
    )
    return Whole(low, high) if annotation is int else Real(low, high, above=is_above)


def kind_command(settings: type[KindSettings], about: str) -> click.Command:
    """Return the command that makes a run of a kind: the runs it takes as arguments, all else as options.

    Args:
        settings: of the kind, whose name the command has.
        about: what the command does, for its help.
    """
    several = [name for name in run_fields(settings) if is_several(settings.model_fields[name])][:1]

    def run(queue: bool, runs_dir: Path, **options: Any) -> Report:
        given = {key: value for key, value in options.items() if value is not None}
        return start(settings.parse(given), runs_dir, queue=queue)

    run = setting_options(settings, without=tuple(several))(QUEUED(in_runs(reports(run))))
    for name in several:
        run = click.argument(name, metavar="RUN...", nargs=-1, required=True, type=PathOrName())(run)
    return click.command(settings.kind, help=f"{about}\n\n{EXITS}")(run)


def plugin_command(name: str) -> click.Command | None:
    """Return the command of a kind of run that a plug-in brings; None where there is no such kind, or it has none."""
    kind = registry().get(name) if name in declared("kinds") else None
    if kind is None or kind.command != name:
        return None
    command = kind_command(cast("type[KindSettings]", kind.settings), kind.form.purpose)
    check_texts(command)
    return command


QUEUED = click.option("--queue", is_flag=True, help="Put the run in the queue instead of working on it now.")

EXITS = "Exit code: 0 finished, 2 bad input, 1 failed, 130 or 143 stopped with its state saved."
"""End of the help of a command that works on a run."""


# --- work


def start(settings: KindSettings, runs_dir: Path, *, queue: bool) -> Report:
    """Work on a new run to its end, or put it in the queue; return its results."""
    if not queue:
        return worked_on(settings, runs_dir)
    (folder,) = put_in_queue(runs_dir, [partial(jobs.create, settings, runs_dir)])
    launch.wake(runs_dir)
    return {"id": folder.name, "status": "queued"}, f"queued {folder.name}", 0


def worked_on(settings: KindSettings, runs_dir: Path) -> Report:
    """Make a run, work on it to its end, and return its results with the conclusion first.

    Raises:
        DynloraError: when something the settings name cannot be used; no folder is left then.
    """
    kind = registry()[settings.kind]
    folder = jobs.create(settings, runs_dir, "running")
    outcome = kind.resume(folder, progress=sys.stderr.isatty(), is_new=True)
    run_id = folder.name
    if outcome.state == "failed":
        return {"id": run_id, "status": "failed", "error": outcome.error}, f"{run_id} failed: {outcome.error}", 1
    if outcome.state == "stopped":
        again = command_text("resume", run_id, runs_dir=runs_dir)
        words = f"stopped {run_id} with its state saved\nnext: {again}"
        return {"id": run_id, "status": "stopped"}, words, 128 + (outcome.signal or signal.SIGTERM)
    document = {"id": run_id, "status": "finished", **run_summary(folder)["results"]}
    conclusion = kind.conclusion(kind.read(folder))
    words = [in_rows(f"{conclusion.text} {conclusion.basis}".strip()), *kind.lines(in_rows(document), runs_dir)]
    return document, "\n".join(words), 0


def resumed(folder: Path, *, force: bool, progress: bool) -> Any:
    """Start or continue a run and return its `Outcome`.

    Raises:
        ConfigError: when this version does not know its kind, or it cannot continue.
        RunNotFoundError: when there is no such run.
        CorruptRunError: when it cannot be read.
    """
    return kind_of_run(folder).resume(folder, force=force, progress=progress)


def facts_of(folder: Path, summary: dict[str, Any]) -> dict[str, Any]:
    """Return `verdict`, `lora_config` and `conclusion`, a sentence, of a run; each None where there is none."""
    kind = registry().get(summary["kind"])
    try:
        return kind.facts(folder, summary) if kind is not None else dict.fromkeys(FACTS)
    except RunNotFoundError:  # it was removed meanwhile
        return dict.fromkeys(FACTS)


FACTS = ("verdict", "lora_config", "conclusion")
