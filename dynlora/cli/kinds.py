"""Runs of every kind on the command line: their options, their work, and what is printed at its end."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, cast

import click
from pydantic.fields import FieldInfo

from dynlora.cli.options import PathOrName, Real, Whole, check_texts, in_rows, in_runs, of_run, reports
from dynlora.config import Section, Setting
from dynlora.discovery import declared
from dynlora.errors import ConfigError, RunNotFoundError
from dynlora.jobs import launch, quick_launch
from dynlora.jobs.queue import put_in_queue
from dynlora.kinds.distil.settings import DistilSettings, writes
from dynlora.kinds.merge.settings import MergeSettings
from dynlora.kinds.named_runs import named_run, run_fields
from dynlora.kinds.recycle.settings import RecycleSettings
from dynlora.kinds.run_kind import kind_of_run, registry
from dynlora.kinds.settings import FormField, KindSettings, marker
from dynlora.safe_files import why_not_a_file
from dynlora.store.schema import command_text
from dynlora.store.summary import run_summary

Report = tuple[dict[str, Any], str, int]
"""Document, words and exit code."""


# --- options


def setting_options(
    *settings: type[Section], without: tuple[str, ...] = ()
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
    hint, settings = marker(fields[0], FormField), [Setting.of(name, field) for field in fields]
    flag = f"--{((hint and hint.option) or name).replace('_', '-')}"
    about = "; or: ".join(dict.fromkeys(one.help.rstrip(".") for one in settings))
    defaults = dict.fromkeys(_default(one) for one in settings)
    if settings[0].type == "bool":
        return click.option(flag, name, is_flag=True, default=None, help=f"{about}.")
    words = "" if set(defaults) == {""} else f" [default: {' or '.join(defaults)}]"
    return click.option(flag, name, type=_type(settings), default=None, help=f"{about}.{words}")


def _default(setting: Setting) -> str:
    """Return a default as a person types it."""
    if isinstance(setting.default, tuple):
        return ",".join(map(str, setting.default))
    return "" if setting.default is None else in_rows(str(setting.default))


def _type(settings: list[Setting]) -> Any:
    """Return the type of an option: numbers with the widest bounds, one of some words, else text."""
    first = settings[0]
    if first.type not in ("int", "float"):
        return click.Choice(first.choices) if first.choices and first.type == "str" else click.STRING
    low, is_above = min((one.low, one.gt is not None) for one in settings)
    if first.type == "float":
        return Real(low, max(one.high for one in settings), above=is_above)
    return Whole(low, max(one.high - (one.lt is not None) for one in settings))


def kind_command(settings: type[KindSettings], about: str) -> click.Command:
    """Return the command that makes a run of a kind: the runs it takes as arguments, all else as options.

    Args:
        settings: of the kind, whose name the command has.
        about: what the command does, for its help.
    """
    several = [name for name in run_fields(settings) if Setting.of(name, settings.model_fields[name]).type == "tuple"][
        :1
    ]

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
    (folder,) = put_in_queue(runs_dir, [partial(quick_launch.create, settings, runs_dir)])
    launch.wake(runs_dir)
    return {"id": folder.name, "status": "queued"}, f"queued {folder.name}", 0


def worked_on(settings: KindSettings, runs_dir: Path) -> Report:
    """Make a run, work on it to its end, and return its results with the conclusion first.

    Raises:
        DynloraError: when something the settings name cannot be used; no folder is left then.
    """
    kind = registry()[settings.kind]
    folder = quick_launch.create(settings, runs_dir, "running")
    outcome = kind.resume(folder, progress=sys.stderr.isatty(), is_new=True)
    run_id = folder.name
    if outcome.state == "failed":
        return {"id": run_id, "status": "failed", "error": outcome.error}, f"{run_id} failed: {outcome.error}", 1
    if outcome.state == "stopped":
        again = command_text("resume", run_id, runs_dir=runs_dir)
        words = f"stopped {run_id} with its state saved\nnext: {again}"
        return {"id": run_id, "status": "stopped"}, words, 128 + (outcome.signal or signal.SIGTERM)
    document = {"id": run_id, "status": "finished", **run_summary(folder).results}
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


@click.command()
@click.argument("teachers", metavar="RUN...", nargs=-1, required=True, type=PathOrName())
@setting_options(RecycleSettings, DistilSettings, without=("teachers",))
@QUEUED
@click.option("--estimate", is_flag=True, help="Say how many minutes it will take, and make no run.")
@in_runs
@reports
def recycle(queue: bool, estimate: bool, runs_dir: Path, **options: Any) -> Any:
    """Make one LoRA of finished runs, without their data.

    Of runs that classify: a meta-LoRA for few-shot tasks (LoRA Recycle). Of runs that write texts: a student of their
    own texts (data-free distillation, not LoRA Recycle).

    Exit code: 0 finished, 2 bad input, 1 failed, 130 or 143 stopped with its state saved.
    """
    settings = settings_of(options, runs_dir)
    if estimate:
        return registry()[settings.kind].estimate(settings, runs_dir)
    return start(settings, runs_dir, queue=queue)


merge = kind_command(
    MergeSettings,
    "Merge the adapters of finished runs of one base model into one adapter, without training.\n\n"
    "Ranks may differ. The merge is measured on the held-out data of each run, beside its own adapter and the base "
    "model.",
)


def settings_of(options: Mapping[str, Any], runs_dir: Path) -> RecycleSettings | DistilSettings:
    """Return checked settings of the command's options, of the kind that the teachers are for.

    Raises:
        ConfigError: for the first thing wrong.
    """
    given = {key: value for key, value in options.items() if value is not None}
    if "shots" in given:
        given["shots"] = [part.strip() for part in given["shots"].split(",")]
    if "test" in given:
        given["test"] = os.path.abspath(os.path.expanduser(given["test"]))
        if problem := why_not_a_file(given["test"]):
            raise ConfigError(f"--test {options['test']}: {problem}")
    return settings_of_teachers(given, runs_dir)


def settings_of_teachers(values: Mapping[str, Any], runs_dir: Path) -> RecycleSettings | DistilSettings:
    """Return checked settings of what finished runs teach: a recycle where they classify, else a distillation.

    Args:
        values: `teachers`, and settings of either.
        runs_dir: where ids of runs are looked for.

    Raises:
        DynloraError: when a teacher is not there, some classify and others write, or a setting does not fit.
    """
    teachers = [named_run("teacher", str(source), runs_dir) for source in values.get("teachers") or ()]
    writers = [run for run in teachers if writes(run)]
    if writers and len(writers) < len(teachers):
        other = next(run for run in teachers if not writes(run))
        raise ConfigError(
            f"teacher {writers[0].id}: writes texts, and {other.id} does not; give runs that all classify, or "
            "runs that all write"
        )
    kind, other_kind = (DistilSettings, RecycleSettings) if writers else (RecycleSettings, DistilSettings)
    for key, value in values.items():
        if key not in kind.model_fields and key in other_kind.model_fields:
            raise ConfigError(_unfit(key, value, is_writing=bool(writers)))
    return kind.parse(values)


def _unfit(key: str, value: Any, *, is_writing: bool) -> str:
    """Return the sentence for a setting of the other kind."""
    given = "" if isinstance(value, bool) else f" {','.join(map(str, value)) if isinstance(value, list) else value}"
    option = f"--{key.replace('_', '-')}{given}"[:80]
    if is_writing:
        return f"{option}: is for teachers that classify, and these write texts, which are distilled; leave it out"
    return f"{option}: is for teachers that write texts, and these classify; leave it out"


@click.command()
@click.option(
    "--support", type=click.Path(path_type=Path), required=True, help="Table with a few labelled texts of each class."
)
@click.option("--text", multiple=True, required=True, help="A text to classify; repeat the option for more.")
@click.option("--text-column", default="text", show_default=True, help="Column of the text.")
@click.option("--label-column", default="label", show_default=True, help="Column of the label.")
@of_run
@reports
def fewshot(folder: Path, support: Path, text: tuple[str, ...], text_column: str, label_column: str) -> Any:
    """Classify texts of a new task from a few examples, with the meta-LoRA of a recycle and no training."""
    if problem := why_not_a_file(support):
        raise ConfigError(f"--support {support}: {problem}")
    from dynlora.kinds.recycle.work.few_shot import load_meta
    from dynlora.kinds.recycle.work.run import texts_of_file

    examples = texts_of_file(support, text_column, label_column)
    rows = [(one, examples.classes[int(label)]) for one, label in zip(examples.texts, examples.label, strict=True)]
    answers = load_meta(folder).fewshot(rows).predict(list(text))
    lines = [
        f"{row['label']}\t{row['text']}\t(distance {row['distances'][row['label']]:.3g}; nearest example: "
        f"{row['nearest']['text']})"
        for row in answers
    ]
    return answers[0] if len(answers) == 1 else answers, "\n".join(lines)
