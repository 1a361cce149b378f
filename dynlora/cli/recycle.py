"""Commands that make one LoRA of finished runs: LoRA Recycle, data-free distillation, and merging."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from dynlora.cli.kinds import QUEUED, kind_command, setting_options, start
from dynlora.cli.options import PathOrName, in_runs, reports
from dynlora.cli.run_commands import Report
from dynlora.errors import ConfigError
from dynlora.kinds.distil.settings import DistilSettings, settings_of_teachers
from dynlora.kinds.merge.settings import MergeSettings
from dynlora.kinds.recycle.settings import RecycleSettings
from dynlora.kinds.run_kind import registry
from dynlora.safe_files import why_not_a_file
from dynlora.store.schema import run_folder


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
