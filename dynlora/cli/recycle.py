"""Commands of LoRA Recycle and of data-free distillation: finished runs teach one LoRA, without their data."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import click

from dynlora.cli import distil
from dynlora.cli.commands import Report
from dynlora.cli.kinds import conclusion_of
from dynlora.cli.options import PathOrName, Real, Whole, in_runs, reports
from dynlora.cli.terminal import shown
from dynlora.errors import ConfigError
from dynlora.jobs import kinds as jobs
from dynlora.jobs import launch
from dynlora.jobs.queue import put_in_queue
from dynlora.kinds.distil import DistilSettings, settings_of_teachers
from dynlora.kinds.recycle import RecycleSettings
from dynlora.safe_files import why_not_a_file
from dynlora.store.schema import command_text, run_folder
from dynlora.store.summary import run_summary

UNCHECKED = "given with --test, not checked against the teachers' data"
"""What is known of the classes of a file."""

FIELDS = (RecycleSettings.model_fields, DistilSettings.model_fields)
"""Settings of both: with two defaults the second is for teachers that write."""


def _option(name: str, kind: Any, text: str) -> Any:
    """Return an option of a setting, whose defaults the help shows; its number has the setting's widest bounds."""
    defaults = dict.fromkeys(fields[name].default for fields in FIELDS if name in fields)
    said = " or ".join(",".join(map(str, one)) if isinstance(one, tuple) else str(one) for one in defaults)
    if kind in (int, float):
        rules = [rule for fields in FIELDS if name in fields for rule in fields[name].metadata]
        low = min(getattr(rule, side) for rule in rules for side in ("ge", "gt") if hasattr(rule, side))
        high = max(getattr(rule, side) for rule in rules for side in ("le", "lt") if hasattr(rule, side))
        kind = Whole(low, high) if kind is int else Real(low, high)
    return click.option(f"--{name.replace('_', '-')}", type=kind, default=None, help=f"{text} [default: {said}]")


@click.command()
@click.argument("teachers", metavar="RUN...", nargs=-1, required=True, type=PathOrName())
@_option("ways", int, "Classes of an episode.")
@_option("shots", str, "Examples per class, such as 1,5.")
@_option("queries", int, "Queries per class of an episode.")
@_option("episodes", int, "Episodes that the meta-LoRA learns from.")
@_option("iterations", int, "Steps of the inversion.")
@_option("inputs", int, "Synthetic inputs per class.")
@_option("tokens", int, "Tokens of a synthetic input, or of a text that a teacher writes.")
@_option("drop", float, "Fraction of the tokens dropped after a quarter of the inversion.")
@_option("samples", int, "Of teachers that write: texts that each writes for the student.")
@_option("held_out", int, "Of teachers that write: texts that each writes for the test alone.")
@_option("train_steps", int, "Of teachers that write: optimizer steps of the student.")
@_option("batch_size", int, "Of teachers that write: texts per optimizer step.")
@_option("rank", int, "Rank of the meta-LoRA or the student.")
@_option("lr", float, "Learning rate of the meta-LoRA or the student.")
@_option("seed", int, "Seed of every random draw.")
@_option("test_episodes", int, "Episodes of the test.")
@click.option("--test", type=click.Path(), default=None, help="File of a new task, with columns text and label.")
@click.option("--noise", is_flag=True, help="Also learn from inputs that were not inverted, as a control.")
@click.option("--name", default=None, help="Display name of the run.")
@click.option("--queue", is_flag=True, help="Put the run in the queue instead of working on it now.")
@click.option("--estimate", is_flag=True, help="Say how many minutes it will take, and make no run.")
@in_runs
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")
def recycle(as_json: bool, queue: bool, estimate: bool, runs_dir: Path, **options: Any) -> None:
    """Make one LoRA of finished runs, without their data.

    Of runs that classify: a meta-LoRA for few-shot tasks (LoRA Recycle). Of runs that write texts: a student of their
    own texts (data-free distillation, not LoRA Recycle).

    Exit code: 0 finished, 2 bad input, 1 failed, 130 or 143 stopped with its state saved.
    """
    settings = settings_of(options, runs_dir)
    if estimate:
        document, words, code = _estimated(settings, runs_dir)
    elif queue:
        (folder,) = put_in_queue(runs_dir, [partial(jobs.create, settings, runs_dir)])
        launch.wake(runs_dir)
        document, words, code = {"id": folder.name, "status": "queued"}, f"queued {folder.name}", 0
    else:
        document, words, code = _recycled(settings, runs_dir)
    click.echo(json.dumps(document, indent=2, allow_nan=False) if as_json else shown(words))
    if code:
        sys.exit(code)


def settings_of(options: Mapping[str, Any], runs_dir: Path) -> RecycleSettings | DistilSettings:
    """Return checked settings of the command's options, of the kind that the teachers are for.

    Raises:
        ConfigError: for the first thing wrong.
    """
    given = {key: value for key, value in options.items() if value is not None and value is not False}
    if "shots" in given:
        given["shots"] = [part.strip() for part in given["shots"].split(",")]
    if "test" in given:
        given["test"] = os.path.abspath(os.path.expanduser(given["test"]))
        if problem := why_not_a_file(given["test"]):
            raise ConfigError(f"--test {options['test']}: {problem}")
    return settings_of_teachers(given, runs_dir)


def _estimated(settings: RecycleSettings | DistilSettings, runs_dir: Path) -> tuple[Any, str, int]:
    """Return how long a recycle or a distillation will take."""
    if isinstance(settings, DistilSettings):
        return (*distil.estimated(settings, runs_dir), 0)
    from dynlora.recycling.estimate import estimated
    from dynlora.recycling.materials import Materials

    found = estimated(Materials.load(settings, runs_dir))
    words = (
        f"about {found['minutes']:.1f} minutes: {found['inversion_minutes']:.1f} to invert {found['classes']} classes, "
        f"{found['episodes_minutes']:.1f} for {settings.episodes:,} episodes; the test comes after that"
    )
    return found, words, 0


def _recycled(settings: RecycleSettings | DistilSettings, runs_dir: Path) -> tuple[Any, str, int]:
    """Work on a new recycle or distillation, and return its results, words and exit code."""
    outcome = _worked(settings, runs_dir)
    run_id = outcome.folder.name
    if outcome.state == "failed":
        return {"id": run_id, "status": "failed", "error": outcome.error}, f"{run_id} failed: {outcome.error}", 1
    if outcome.state == "stopped":
        words = f"stopped {run_id} with its state saved\nnext: {command_text('resume', run_id, runs_dir=runs_dir)}"
        return {"id": run_id, "status": "stopped"}, words, 128 + (outcome.signal or signal.SIGTERM)
    found = run_summary(outcome.folder)["results"]
    lines = distil.result_lines if isinstance(settings, DistilSettings) else result_lines
    document = {"id": run_id, "status": "finished", **found}
    if isinstance(settings, RecycleSettings):
        document.setdefault("accuracy", {})
    return document, "\n".join([conclusion_of(outcome.folder, settings.kind), *lines(document, runs_dir)]), 0


def _worked(settings: RecycleSettings | DistilSettings, runs_dir: Path) -> Any:
    """Make a run, work on it to its end and return its `Outcome`."""
    if isinstance(settings, DistilSettings):
        from dynlora.distilling.run import distil as work

        return work(settings, runs_dir, progress=sys.stderr.isatty())
    from dynlora.recycling.run import recycle as work_on

    return work_on(settings, runs_dir, progress=sys.stderr.isatty())


def result_lines(document: Mapping[str, Any], runs_dir: Path) -> Iterator[str]:
    """Yield the next command after a recycle, and the table of its results."""
    run_id, accuracy = document["id"], document.get("accuracy") or {}
    again = command_text("fewshot", run_id, "--support", "FILE", "--text", "TEXT", runs_dir=runs_dir)
    yield f"next: {again}"
    test = document.get("test") or {}
    if test:
        kind = UNCHECKED if test.get("is_new") else "classes that the teachers know"
        yield f"{run_id}, {test['classes']} classes of {test['source']} ({kind}); mean accuracy (95 % CI over episodes)"
    for method, by_shots in accuracy.items():
        for shots, row in by_shots.items():
            yield f"  {document['methods'][method]:55} {shots}-shot  {_interval(row)}"
    for note in document.get("notes") or ():
        yield f"note: {note}"


def _interval(row: Mapping[str, Any]) -> str:
    return f"{row['mean']:.3f} ({row['low']:.3f} to {row['high']:.3f})"


@click.command()
@click.argument("run_id", metavar="ID")
@click.option(
    "--support", type=click.Path(path_type=Path), required=True, help="Table with a few labelled texts of each class."
)
@click.option("--text", multiple=True, required=True, help="A text to classify; repeat the option for more.")
@click.option("--text-column", default="text", show_default=True, help="Column of the text.")
@click.option("--label-column", default="label", show_default=True, help="Column of the label.")
@in_runs
@reports
def fewshot(
    run_id: str, support: Path, text: tuple[str, ...], text_column: str, label_column: str, runs_dir: Path
) -> Report:
    """Classify texts of a new task from a few examples, with the meta-LoRA of a recycle and no training."""
    folder = run_folder(runs_dir, run_id)
    if problem := why_not_a_file(support):
        raise ConfigError(f"--support {support}: {problem}")
    from dynlora.recycling.few_shot import load_meta
    from dynlora.recycling.few_shot_accuracy import texts_of_file

    found = texts_of_file(support, text_column, label_column)
    rows = [(one, found.classes[int(label)]) for one, label in zip(found.texts, found.label, strict=True)]
    answers = load_meta(folder).fewshot(rows).predict(list(text))
    lines = [
        f"{row['label']}\t{row['text']}\t(distance {row['distances'][row['label']]:.3g}; nearest example: "
        f"{row['nearest']['text']})"
        for row in answers
    ]
    return answers[0] if len(answers) == 1 else answers, "\n".join(lines)
