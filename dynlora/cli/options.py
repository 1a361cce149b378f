"""What several commands share: how they report, where the runs are, how a config is given."""

from __future__ import annotations

import json
import math
import re
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import wraps
from pathlib import Path
from typing import Any

import click

from dynlora.addresses import is_url, without_secrets
from dynlora.errors import ConfigError
from dynlora.inference.forms import RANKS, form_of, forms, targets
from dynlora.jobs import helper_job
from dynlora.jobs.environment import process_number
from dynlora.safe_files import kind_of_file, output_file, storing, write_output
from dynlora.store.schema import DEFAULT_RUNS_DIR, run_folder
from dynlora.text import is_text

_COMMANDS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""Controls but tab and line feed, which our own tables use; what turns the direction of writing round; surrogates."""


def printable(text: str) -> str:
    r"""Return text without anything that drives a terminal, or that it cannot encode.

    An escape becomes the four characters `\x1b`, a byte of the command line that is not UTF-8 the six `\udcff`.
    """
    safe = _COMMANDS.sub(lambda match: ascii(match.group())[1:-1], text)
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    return safe.encode(encoding, "backslashreplace").decode(encoding)


_ROW_ENDS = {ord(end): ascii(end)[1:-1] for end in "\t\n\u2028\u2029"}


def in_rows(values: Any) -> Any:
    r"""Return plain values for rows of words: in their texts, keys too, line feeds and tabs are written out as `\n`.

    `printable` leaves both, as our own tables use them; a name that holds one would forge a row.
    """
    if isinstance(values, str):
        return values.translate(_ROW_ENDS)
    if isinstance(values, Mapping):
        return {in_rows(key): in_rows(value) for key, value in values.items()}
    return [in_rows(value) for value in values] if isinstance(values, list | tuple) else values


def exit_code(outcome: Any) -> int:
    """Return 0 for a run that finished, 1 for one that failed, and 128 and the signal for one that was stopped."""
    return {"finished": 0, "failed": 1}.get(outcome.state, 128 + (outcome.signal or signal.SIGTERM))


def reports(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add --json; the function returns a document and how to say it in words, which `--out -` leads to stderr.

    A third value is the exit code of the command; without one it is 0.

    Raises:
        ConfigError: when two documents would go to standard output.
    """

    @click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")
    @wraps(function)
    def wrapped(as_json: bool, **options: Any) -> None:
        out = options.get("out")
        if out == STDOUT and as_json:
            raise ConfigError("--json: standard output takes one document; leave --json out, or give --out a file")
        document, words, *code = function(**options)
        tell(document, words, as_json=as_json, out=out)
        if any(code):
            click.get_current_context().exit(code[0])

    return wrapped


def tell(document: Any, words: str, *, as_json: bool, out: Path | None = None) -> None:
    """Print a document or its words; of several processes only the first does, so that there is one document.

    Args:
        document: as JSON.
        words: the same for a person.
        as_json: whether the document is printed.
        out: file that was asked for and has the result; None for none.
    """
    helper_job.finish(None if out else document, words)
    if process_number("RANK", 0) == 0:
        text = json.dumps(document, indent=2, allow_nan=False, default=str) if as_json else printable(words)
        click.echo(text, err=out == STDOUT)


def progress(what: str, done: int, of: int) -> None:
    """Say how far a command is, to whoever follows it and on a terminal.

    Args:
        what: is done, such as "modules measured".
        done: how many.
        of: how many there are.
    """
    helper_job.tell(done, of, what)
    if sys.stderr.isatty():
        click.echo(f"\r{done} of {of} {what}", nl=done == of, err=True)


class Text(click.ParamType):
    """Text as it was typed; bytes of the command line that are not UTF-8 are refused, as nothing could keep them."""

    name = "text"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the text.

        Raises:
            click.BadParameter: when it cannot be encoded.
        """
        if not is_text(str(value)):
            self.fail(f"{value} is not UTF-8 text, type it again in a terminal that uses UTF-8", param, ctx)
        return str(value)


LONGEST_NUMBER = 40
"""Characters of a number; more are refused unread, as a message would repeat them."""

MOST_STEPS, MOST_ROWS, MOST_SECONDS = 10_000_000, 100_000_000, 31_536_000
"""Bounds of counts of steps, of rows and of waits in seconds (a year)."""


class _Bounded(click.ParamType):
    """A number between two finite bounds: NaN, infinities and numbers of any length are refused in one sentence."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the number.

        Raises:
            click.BadParameter: when it is none, not finite, or out of bounds.
        """
        text = str(value)
        if len(text) > LONGEST_NUMBER:
            self.fail(f"{text[:LONGEST_NUMBER]}... is too long; {self.rule}", param, ctx)
        try:
            is_finite = math.isfinite(self._number_class(text))  # pyright: ignore[reportAttributeAccessIssue]
        except ValueError:
            is_finite = False
        if not is_finite:
            self.fail(f"{text} is not one; {self.rule}", param, ctx)
        return super().convert(value, param, ctx)

    @property
    def rule(self) -> str:
        """What the number must be, in words."""
        kind = "a whole number" if isinstance(self, click.IntRange) else "a number"
        return f"give {kind} in the range {self._describe_range()}"  # pyright: ignore[reportAttributeAccessIssue]


class Whole(_Bounded, click.IntRange):
    """A whole number between two bounds."""

    def __init__(self, low: int, high: int) -> None:
        """Take numbers from `low` to `high`."""
        super().__init__(low, high)


class Real(_Bounded, click.FloatRange):
    """A number between two finite bounds."""

    def __init__(self, low: float, high: float, *, above: bool = False) -> None:
        """Take numbers from `low`, or `above` it, to `high`."""
        super().__init__(low, high, min_open=above)


def check_texts(command: click.Command) -> None:
    """Have every parameter of a command, and of the commands below it, that is plain text refuse what is not text."""
    for below in command.commands.values() if isinstance(command, click.Group) else ():
        check_texts(below)
    for parameter in command.params:
        if parameter.type is click.STRING:
            parameter.type = Text()


STDOUT = Path("-")
"""Given as a file to write: standard output."""


class OutFile(click.Path):
    """A file to write. What is there is looked at before any work; `-` is standard output."""

    def __init__(self) -> None:
        """Take a path."""
        super().__init__(allow_dash=True, path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the path as it was given.

        Raises:
            ConfigError: when something else than a file is there.
        """
        path: Any = super().convert(value, param, ctx)
        if path != STDOUT:
            output_file(path, param.opts[0] if param is not None else "")
        return path


def _check_export(out: Path) -> None:
    from dynlora.training.folder_work import check_out

    check_out(out)


class OutFolder(click.Path):
    """A folder to write to, or an archive. What is there is looked at before any work."""

    def __init__(self, check: Callable[[Path], object] = _check_export) -> None:
        """Take a path; `check` raises where nothing may be written, by default where an adapter may not."""
        super().__init__(path_type=Path)
        self.check = check

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the path as it was given.

        Raises:
            click.BadParameter: when it is empty, which would be the current folder.
            ConfigError: when something is there that stays.
        """
        if not str(value):
            self.fail("is empty; give the name of a folder, or . for the current one", param, ctx)
        path: Any = super().convert(value, param, ctx)
        self.check(path)
        return path


def write_out(out: Path, content: bytes) -> None:
    """Write what a command was told to write: to a file, or to standard output.

    Raises:
        ConfigError: when something else than a file is there.
        StorageError: when the file cannot be written.
        OSError: when standard output takes nothing.
    """
    if out == STDOUT:
        sys.stdout.buffer.write(content)
    else:
        write_output(out, content)


@contextmanager
def files_into(out: Path) -> Iterator[None]:
    """Make the folder that a command writes files to; where none could be written, no folder is left.

    Raises:
        StorageError: when the folder cannot be made.
    """
    new = [folder for folder in (out, *out.parents) if not folder.exists()]
    with storing(str(out)):
        out.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except Exception:
        for folder in new:
            with suppress(OSError):  # it holds what could be written
                folder.rmdir()
        raise


class PathOrName(click.ParamType):
    """A text that may be the path of a file or folder, or the name of something else, such as a run or a URL."""

    name = "path"


class RunsFolder(click.Path):
    """A folder of runs; an address is text where it is taken, and refused elsewhere: a path would lose a slash."""

    def __init__(self, *, takes_url: bool = False) -> None:
        """Take a path, and an address too where told so."""
        super().__init__(file_okay=False, path_type=Path)
        self.takes_url = takes_url

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return a path, or an address as it is.

        Raises:
            ConfigError: for an address where none is taken, and for a file.
            OSError: when the system refuses to look.
        """
        if not is_url(value):
            if (kind := kind_of_file(value)) not in ("", "a folder"):
                raise ConfigError(f"--runs-dir {value}: is {kind}; give a folder")
            return super().convert(value, param, ctx)
        if self.takes_url:
            return value
        raise ConfigError(
            f"--runs-dir {without_secrets(value)}: must be a folder of this machine; show runs that are elsewhere with "
            "`dynlora ui --runs-dir URL`, or fetch them with `dynlora pull URL --all`"
        )


def in_runs(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add --runs-dir."""
    return _runs_option(RunsFolder(), "Folder of the runs.")(function)


def in_runs_anywhere(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add --runs-dir that may be an address too."""
    return _runs_option(RunsFolder(takes_url=True), "Folder of the runs; a URL they were sent to is shown read-only.")(
        function
    )


def of_run(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the argument ID and --runs-dir; the function takes `folder`, that of the run.

    Raises:
        ConfigError, CorruptRunError, RunNotFoundError: as `run_folder`.
    """

    @RUN_ID
    @in_runs
    @wraps(function)
    def wrapped(run_id: str, runs_dir: Path, **options: Any) -> Any:
        return function(folder=run_folder(runs_dir, run_id), **options)

    return wrapped


RUN_ID = click.argument("run_id", metavar="ID")
WHICH = click.option("--which", default="last", show_default=True, help="last or best.")
ROWS = click.option(
    "--rows", type=Whole(1, MOST_ROWS), default=512, show_default=True, help="Number of held-out examples."
)


def _runs_option(kind: RunsFolder, text: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    return click.option("--runs-dir", type=kind, default=DEFAULT_RUNS_DIR, show_default=True, help=text)


def formed(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add --format, --ranks and --for; the function takes `form`."""

    @click.option("--format", "format_", default="peft", show_default=True, help=f"One of {', '.join(forms())}.")
    @click.option(
        "--ranks",
        default=None,
        metavar="|".join(RANKS),
        help="Of the format peft: each module with its own rank, or one for all, as SGLang, TGI and LoRAX need it.",
    )
    @click.option(
        "--for", "engine", default=None, metavar="ENGINE", help=f"What shall read it: {', '.join(targets())}."
    )
    @wraps(function)
    def wrapped(format_: str, ranks: str | None, engine: str | None, **options: Any) -> Any:
        return function(form=form_of(format_, ranks, engine), **options)

    return wrapped


def configured(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add --config, --set and --name."""
    for option in (
        click.option("--name", default=None, help="Display name of the run."),
        click.option(
            "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Set one key, such as train.lr=1e-3."
        ),
        click.option(
            "--config", type=click.Path(path_type=Path), default=None, help="YAML file, such as config.yaml of a run."
        ),
    ):
        function = option(function)
    return function
