"""`dynlora rsd`: a draft run and a target run write together, and a reward decides who; and what prepares the runs."""

from __future__ import annotations

import os
import signal as signals
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from dynlora.cli.kinds import setting_options
from dynlora.cli.options import PathOrName, exit_code, in_rows, in_runs, reports, tell
from dynlora.errors import ConfigError, RunRoleError
from dynlora.kinds.decode.settings import OWN, DecodeSettings, Preparation
from dynlora.store.schema import command_text
from dynlora.store.summary import run_summary

ESCAPES = (("\\n", "\n"), ("\\t", "\t"))
"""What a shell cannot easily give."""


def _run_option(role: str, text: str) -> Any:
    """Return the option of a run that has a role: its id or its folder."""
    return click.option(f"--{role}", type=PathOrName(), default=None, metavar="RUN", help=text)


def _unescaped(text: str) -> str:
    r"""Return text with the characters that `\n` and `\t` stand for on a command line."""
    for escape, character in ESCAPES:
        text = text.replace(escape, character)
    return text


@click.group(invoke_without_command=True)
@_run_option("draft", "Run that writes each step first: its id or folder.")
@_run_option("target", "Run that rewrites the steps that score too low.")
@click.option(
    "--reward",
    type=PathOrName(),
    default="target-likelihood",
    show_default=True,
    metavar="RUN|NAME",
    help="A classification run that judges steps, or oracle, target-likelihood or target-token.",
)
@click.option(
    "--data", type=PathOrName(), default=None, help="Built-in data, a hub id or a file; empty: the target's data."
)
@click.option(
    "--threshold",
    default="0.7",
    show_default=True,
    metavar="A:B:N",
    help="Reward from which a step is kept: a number, several with commas, or N numbers from A to B.",
)
@click.option("--control", default="", metavar="P,P", help="Also keep steps by chance, with these probabilities.")
@setting_options(DecodeSettings, without=("draft", "target", "reward", "data", "values", "control", "ends"))
@in_runs
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")
@click.pass_context
def rsd(ctx: click.Context, as_json: bool, **options: Any) -> None:
    """Reward-Guided Speculative Decoding: a draft writes steps, a reward judges them, a target rewrites poor ones.

    Each threshold is one point; the draft alone and the target alone are decoded too. The result is a run of its own.
    Exit code: 0 finished, 2 bad input, 1 failed, 130 or 143 stopped; `dynlora resume ID` continues.
    """
    if ctx.invoked_subcommand is not None:
        return
    settings, runs_dir = settings_of(options), options["runs_dir"]
    with of_options():
        settings.check(runs_dir)
    from dynlora.kinds.decode.work.run import decode

    outcome = decode(settings, runs_dir, progress=sys.stderr.isatty())
    document, words = found_by(outcome, runs_dir)
    tell(document, words, as_json=as_json)
    if code := exit_code(outcome):
        ctx.exit(code)


@contextmanager
def of_options() -> Iterator[None]:
    """Name the option in the sentence about a run that it gave: settings know roles, and a command has options.

    Raises:
        RunRoleError: with the option in the place of the role.
    """
    try:
        yield
    except RunRoleError as error:
        raise RunRoleError(f"--{error}") from None


def settings_of(options: Mapping[str, Any]) -> DecodeSettings:
    """Return what was asked for as settings.

    Raises:
        ConfigError: when a role is missing, or a value cannot be used.
    """
    from dynlora.kinds.decode.work.results import values_of

    for role in ("draft", "target"):
        if not options[role]:
            raise ConfigError(
                f"--{role}: is missing; give a run of a language model, which "
                f"`{command_text('runs', runs_dir=options['runs_dir'])}` lists, or make the three with "
                f"`{command_text('rsd', 'prepare', runs_dir=options['runs_dir'])}`"
            )
    if options["reward"] == OWN:
        raise ConfigError("--reward callable: is a function, which only Python can give; use dynlora.speculate")
    data, control = options["data"], options["control"].strip()
    file = Path(os.path.expanduser(data or ""))
    given = {name: options[name] for name in DecodeSettings.model_fields if options.get(name) is not None}
    return DecodeSettings.parse(
        {
            **given,
            **{name: _absolute(options[name]) for name in ("draft", "target", "reward")},
            "data": os.path.abspath(file) if data and file.exists() else data,
            "values": values_of(options["threshold"]),
            "control": values_of(control) if control else [],
            "step_string": options["step_string"] and _unescaped(options["step_string"]),
        }
    )


def _absolute(run: str | None) -> str | None:
    """Return a run's folder as an absolute path; an id as it is."""
    folder = os.path.expanduser(run or "")
    is_folder = run is not None and run != Path(run).name and Path(folder).is_dir()
    return os.path.abspath(folder) if is_folder else run


def found_by(outcome: Any, runs_dir: Path) -> tuple[dict[str, Any], str]:
    """Return what a decode found, and its words, the conclusion first."""
    from dynlora.kinds.decode.work.results import words

    summary = run_summary(outcome.folder)
    document = {
        "id": summary.id,
        "status": summary.status,
        "step": summary.step,
        "max_steps": summary.max_steps,
        **summary.results,
    }
    lines = [words(in_rows(document))] if document.get("points") is not None else []
    if outcome.state == "stopped":
        by = signals.Signals(outcome.signal or signals.SIGTERM).name
        again = command_text("resume", summary.id, runs_dir=runs_dir)
        lines.insert(
            0, f"Stopped by {by} after {summary.step:,} of {summary.max_steps:,} solutions; `{again}` continues."
        )
    if outcome.error:
        lines.insert(0, f"Failed: {outcome.error}")
    return document, "\n".join([*lines, f"run {summary.id}"])


@rsd.command()
@setting_options(Preparation)
@in_runs
@reports
def prepare(runs_dir: Path, **options: Any) -> Any:
    """Train a target, a draft of some of its blocks, and a judge of the draft's steps, in turn.

    The judge learns from partial solutions that the draft writes for training problems; a check of each step labels
    them. What is trained already is given with --draft and --target.
    """
    given = {name: value for name, value in options.items() if value}
    if "step_string" in given:
        given["step_string"] = _unescaped(given["step_string"])
    preparation = Preparation.parse(given)
    from dynlora.kinds.decode.work.prepare import prepare as prepare_runs

    with of_options():
        prepared = prepare_runs(
            preparation, runs_dir, lambda line: click.echo(line, err=True), progress=sys.stderr.isatty()
        )
    words = f"{prepared['command']}\ntarget {prepared['target']}, draft {prepared['draft']}, judge {prepared['judge']}"
    return prepared, f"Three runs are ready; decode with\n{words}"
