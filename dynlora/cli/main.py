"""The command line: thin, one function a command. A user's mistake is one sentence and exit code 2."""

from __future__ import annotations

import errno
import logging
import os
import sys
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Any

import click

from dynlora.addresses import hidden
from dynlora.cli import commands
from dynlora.cli.adapters import check, convert, data, export, inspect
from dynlora.cli.commands import advise, datasets, doctor, models, preflight, strategies
from dynlora.cli.compress import compress
from dynlora.cli.decode import rsd
from dynlora.cli.kinds import fewshot, merge, plugin_command, recycle
from dynlora.cli.knockout import ablate, answer, knockout, strength
from dynlora.cli.options import RUN_ID, check_texts, configured, in_runs, printable, reports, tell
from dynlora.cli.remote import import_, pull, push, sync, track
from dynlora.cli.run_commands import (
    compare,
    delete,
    evaluate,
    gallery,
    predict,
    report,
    runs,
    share,
    show,
    signals,
    stop,
    tag,
)
from dynlora.cli.serving import check_queued, demo, docs, ui, warm
from dynlora.cli.sweep import queue, sweep
from dynlora.discovery import declared
from dynlora.errors import ConfigError, DynloraError, SearchError, system_error, system_message
from dynlora.jobs import helper_job


class Commands(click.Group):
    """Commands in the order of the README; a mistake anywhere is a sentence, not a trace."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the commands as they were defined, and those of plug-ins."""
        return list(dict.fromkeys([*self.commands, *sorted(declared("kinds"))]))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command by its name, that of a plug-in where dynlora has none."""
        return super().get_command(ctx, cmd_name) or plugin_command(cmd_name)

    def invoke(self, ctx: click.Context) -> Any:
        """Turn our own errors, click's, and what the system refuses into one line on stderr and exit code 2.

        Below it a mistake in a search is shown in its place.
        """
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
            return result
        except (click.exceptions.Exit, click.Abort):
            raise
        except Exception as error:
            message = _message(error, ctx)
            helper_job.fail(ConfigError() if isinstance(error, click.ClickException) else error, message)
            logging.getLogger(__name__).debug("the error in full", exc_info=True)
            picture = f"\n{error.picture}" if isinstance(error, SearchError) else ""
        with suppress(OSError):  # there may be nowhere left to say it
            click.echo(printable(f"Error: {' '.join(hidden(message).split())}{picture}"), err=True)
        ctx.exit(2)


def _message(error: Exception, ctx: click.Context) -> str:
    """Return the sentence about an error, from within its handler.

    Raises:
        Exception: the error itself where it is a defect, or a reader of the output that has left: click ends quietly.
    """
    if isinstance(error, DynloraError):
        return str(error)
    if isinstance(error, click.ClickException):
        context = getattr(error, "ctx", None) or ctx
        return f"{error.format_message().rstrip('.')}; see `{context.command_path} --help`"
    refused = system_error(error)
    if refused is None or refused.errno == errno.EPIPE:
        helper_job.fail(error)
        raise error
    is_output = _raised_in(error).partition(".")[0] == "click" or _raised_in(error) in WRITERS
    if is_output:  # what it refused is dropped, or Python would try again at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return system_message(refused, "standard output" if is_output else "")


WRITERS = (__name__, "dynlora.cli.options")
"""Modules that write to standard output themselves; all others do by way of click."""


def _raised_in(error: Exception) -> str:
    """Return the name of the module that raised an error."""
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    return str(frame.f_globals.get("__name__", ""))


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="dynlora")
def main() -> None:
    """Fine-tune transformers with LoRA whose rank moves to the modules that matter, and see it move."""
    Path.cwd()  # where it was removed, libraries end the process; it raises in a module that writes no output
    helper_job.attach()
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s", stream=sys.stderr)
    for name in ("httpx", "urllib3", "filelock", "datasets", "accelerate"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for name in ("fsspec", "s3fs", "gcsfs", "botocore", "aiobotocore"):  # what goes wrong is one sentence of ours
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)


@main.command()
@configured
@in_runs
@click.option(
    "--queue", is_flag=True, help=("Check the config, create the run and put it in the queue, instead of training now.")
)
@click.option("--stay", is_flag=True, hidden=True, help="With --queue: train the run here if it is next.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")
def train(as_json: bool, queue: bool, stay: bool, **options: Any) -> None:
    """Train a run.

    Exit code: 0 finished, 2 bad input, 1 failed, 130 or 143 stopped with its state saved.
    """
    printed: list[str] = []

    def say(document: Any, words: str) -> None:
        """Tell what was queued at once: training it comes after that, and its words go to the run's log."""
        tell(document, words, as_json=as_json)
        printed.append(words)

    document, words, code = commands.train(
        queue=queue, progress=not queue and sys.stderr.isatty(), stay=say if stay else None, **options
    )
    tell(document, words, as_json=as_json and not printed)
    if code:
        sys.exit(code)


@main.command()
@RUN_ID
@in_runs
@click.option("--force", is_flag=True, help="Resume even if another host may still write the run.")
@reports
def resume(**options: Any) -> tuple[Any, str, int]:
    """Resume a stopped, failed or interrupted run, or start a queued run."""
    return commands.resume(progress=sys.stderr.isatty(), **options)


for _command in (
    *(stop, delete, tag, runs, show, compare, sweep, signals, export),
    *(predict, evaluate, advise, compress, recycle, fewshot, merge, ablate, knockout, strength, rsd, queue),
    *(push, pull, sync, answer, warm, check_queued),
    *(preflight, models, datasets, strategies, ui, demo, docs, doctor),
    *(data, report, share, gallery, inspect, check, convert, track, import_),
):
    main.add_command(_command)

check_texts(main)
