"""Commands that serve pages: the dashboard, the demo, the documentation."""

from __future__ import annotations

import importlib
import json
import os
import queue
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import click

from dynlora.cli.options import RUN_ID, Whole, in_runs, in_runs_anywhere
from dynlora.config_files import read_run_config
from dynlora.errors import DynloraError
from dynlora.jobs import environment
from dynlora.jobs.environment import JOB_VARIABLE
from dynlora.jobs.launch import requested_checks
from dynlora.jobs.queue import LOG_NAME, is_pending, refuse
from dynlora.jobs.quick_launch import kept_start
from dynlora.jobs.spawn import log_from_here
from dynlora.jobs.warm import TAKEN
from dynlora.store.schema import run_folder

NEEDED = (
    "torch",
    "accelerate",
    "datasets",
    "dynlora.strategies",
    "dynlora.tasks.classification",
    "dynlora.tasks.regression",
    "dynlora.tasks.causal_lm",
    "dynlora.training.run",
    "dynlora.training.preflight",
    "dynlora.training.run",
    "dynlora.inference.worker",
    "dynlora.inference.export",
    "transformers.models.bert.modeling_bert",
    "transformers.models.bert.tokenization_bert",
)
"""What commands with a model import, in order; transformers imports the files of an architecture when it needs them."""

NICE = 5
"""How far the priority is lowered while importing: a page that is being drawn, or a run that trains, goes first."""


ANSWERING = ("preflight",)
"""Commands that have done all they do once their answer is printed: what imports and threads tidy up is left out."""


@click.command(hidden=True)
@click.pass_context
def warm(context: click.Context) -> None:
    """Import what training needs, read one command from standard input and become it; end with the input."""
    ahead = Ahead()
    ahead.start()
    order = _order(ahead)
    if order is None:
        os._exit(0)  # nobody needs what is being imported
    os.write(1, TAKEN)
    ahead.imported.wait()
    environment.imported()
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    if order["job"] is not None:
        os.environ[JOB_VARIABLE] = order["job"]
    if order["log"] is not None:
        log_from_here(Path(order["log"]))
    try:
        context.find_root().command.main(args=order["arguments"], prog_name="dynlora")
    except SystemExit as end:
        if order["arguments"][0] in ANSWERING and isinstance(end.code, int):
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(end.code)  # whoever asked waits for the end, and has the answer already
        raise


@click.command(name="check-queued", hidden=True)
@RUN_ID
@in_runs
def check_queued(run_id: str, runs_dir: Path) -> None:
    """Check runs of the queue whole, ID and all whose check was asked for; one that cannot be trained has failed then.

    One process of a runs folder does so at a time: another one ends at once, before it imports what a check needs.
    """
    refused = set[str]()
    for requested in requested_checks(Path(os.path.realpath(runs_dir))):
        with suppress(DynloraError):  # one that was deleted, or that cannot be read
            folder = run_folder(runs_dir, requested)
            if is_pending(folder):
                log_from_here(folder / LOG_NAME)
                refused |= {requested} if refusal(folder) is not None else set()
    sys.exit(2 if run_id in refused else 0)


def refusal(folder: Path) -> str | None:
    """Check a queued run whole, at lower priority; one that cannot be trained has failed then.

    A run that began meanwhile stays as it is.

    Returns:
        Why it cannot be trained, in a sentence; None when it can.
    """
    from dynlora.training.run import plan

    if hasattr(os, "nice"):
        with suppress(OSError):
            os.nice(NICE)
    try:
        plan(read_run_config(folder), kept_start(folder))
    except DynloraError as error:
        refuse(folder, str(error))
        return str(error)
    return None


def _order(ahead: Ahead) -> dict[str, Any] | None:
    """Return the command that was sent, None when the input ended; what is told before it is worked on meanwhile."""
    while (line := sys.stdin.readline()).strip():
        order = json.loads(line)
        if "likely" not in order:
            ahead.stop()
            return order
        ahead.likely.put(order["likely"])
    return None


class Ahead(threading.Thread):
    """Imports, then makes tokens of what is likely to come, in a thread of lower priority, until the command is there.

    Linux has a priority for each thread, and none can be raised again: the main thread, which becomes the command,
    keeps its own. Elsewhere the priority is the process's and stays as it is. What fails here fails again, and is told,
    where it is needed.

    Attributes:
        imported: set when the imports are done.
        likely: values of the configurations that were told, and None at the end.
    """

    def __init__(self) -> None:
        """Begin with nothing."""
        super().__init__(daemon=True)
        self.imported = threading.Event()
        self.likely: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._is_stopped = False

    def stop(self) -> None:
        """Begin no further part of the work: the command has come."""
        self._is_stopped = True
        self.likely.put(None)

    def run(self) -> None:
        """Work until the end is told."""
        if sys.platform == "linux":
            with suppress(OSError):
                os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)
        try:
            _import_all()
        finally:
            self.imported.set()
        while (values := self._latest()) is not None:
            with suppress(Exception):
                from dynlora.training.inputs import make_tokens

                make_tokens(values, is_wanted=lambda: not self._is_stopped)

    def _latest(self) -> dict[str, Any] | None:
        """Wait for what was told, and return the last of it."""
        latest = self.likely.get()
        while latest is not None and not self.likely.empty():
            latest = self.likely.get()
        return latest


def _import_all() -> None:
    """Import what is needed, and let it do once what it does when it is first used."""
    for name in NEEDED:
        with suppress(Exception):
            importlib.import_module(name)
    with suppress(Exception):
        from dynlora.strategies import registry

        registry()
    with suppress(Exception):  # bars of a thread would stand in the middle of what the command says
        importlib.import_module("datasets").disable_progress_bars()
    with suppress(Exception):  # a table of patterns that transformers compiles when it loads its first model
        importlib.import_module("transformers.conversion_mapping").get_checkpoint_conversion_mapping("bert")


@click.command()
@in_runs_anywhere
@click.option("--port", type=Whole(0, 65535), default=8501, show_default=True)
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    help=("Address to bind; a non-local address makes the dashboard read-only."),
)
@click.option(
    "--token-file",
    type=click.Path(dir_okay=False, path_type=Path),
    default=None,
    help="File with the token that unlocks launching and deleting on other machines; or set DYNLORA_TOKEN.",
)
def ui(runs_dir: Path | str, **options: Any) -> None:
    """Serve the dashboard."""
    from dynlora.server.serve import ui as serve

    if isinstance(runs_dir, Path):
        sys.exit(serve(runs_dir=runs_dir, **options))
    from dynlora.remote.sync import Mirror, run_ids

    mirror = Mirror(runs_dir)
    there = len(run_ids(mirror.place))  # a place that cannot be reached is said before a server starts
    click.echo(f"read-only copy of {mirror.place.address} (runs there: {there}), in {mirror.folder}", err=True)
    mirror.start()
    sys.exit(serve(runs_dir=mirror.folder, mirror_of=mirror.place.address, **options))


@click.command()
@in_runs
@click.option("--port", type=Whole(0, 65535), default=8501, show_default=True)
@click.option("--planted", is_flag=True, help="Train lora and dynamic on planted ranks, and compare them.")
def demo(runs_dir: Path, port: int, planted: bool) -> None:
    """Start a dynamic fine-tuning run of the built-in model and serve the dashboard."""
    from dynlora.server.serve import demo as serve

    sys.exit(serve(runs_dir=runs_dir, port=port, planted=planted))


@click.command()
@click.option("--port", type=Whole(0, 65535), default=8502, show_default=True, help="0: any free port.")
def docs(port: int) -> None:
    """Serve the documentation on 127.0.0.1; works offline."""
    from dynlora.server import docs_site

    with docs_site.server(docs_site.site_dir(), port) as server:  # refuses a taken port before a site is built
        docs_site.ready()
        click.echo(f"documentation on http://127.0.0.1:{server.server_port}; Ctrl-C ends it", err=True)
        with suppress(KeyboardInterrupt):
            server.serve_forever()
