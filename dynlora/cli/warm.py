"""Commands that only the dashboard runs: the warm spare, and the check of a queued run."""

from __future__ import annotations

import importlib
import json
import os
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import click

from dynlora.cli.options import in_runs
from dynlora.errors import DynloraError
from dynlora.jobs import check_requests, own_process
from dynlora.jobs.queue import LOG_NAME, is_pending
from dynlora.jobs.spawn import log_from_here
from dynlora.jobs.warm import TAKEN
from dynlora.store.schema import run_folder

NEEDED = (
    "torch", "accelerate", "datasets", "dynlora.strategies", "dynlora.tasks.classification",
    "dynlora.tasks.regression", "dynlora.tasks.causal_lm", "dynlora.training.run", "dynlora.training.preflight",
    "dynlora.training.queued",
    "dynlora.inference.worker", "dynlora.inference.export", "transformers.models.bert.modeling_bert",
    "transformers.models.bert.tokenization_bert",
)  # fmt: skip
"""What commands with a model import, in order; transformers imports the files of an architecture when it needs them."""

NICE = 5
"""How far the priority is lowered while importing: a page that is being drawn, or a run that trains, goes first."""


ANSWERING = ("preflight",)
"""Commands that have done all they do once their answer is printed: what imports and threads tidy up is left out."""


@click.command(hidden=True)
@click.pass_context
def warm(context: click.Context) -> None:
    """Import what training needs, read one command from standard input and become it; end with the input."""
    imports = threading.Thread(target=_import_all, daemon=True)
    imports.start()
    order = _order(sys.stdin.readline())
    if order is None:
        os._exit(0)  # nobody needs what is being imported
    os.write(1, TAKEN)
    imports.join()
    own_process.imported()
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
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
@click.argument("run_id", metavar="ID")
@in_runs
def check_queued(run_id: str, runs_dir: Path) -> None:
    """Check runs of the queue whole, ID and all whose check was asked for; one that cannot be trained has failed then.

    One process of a runs folder does so at a time: another one ends at once, before it imports what a check needs.
    """
    refused = set[str]()
    for asked in check_requests.taken(runs_dir.resolve()):
        with suppress(DynloraError):  # one that was deleted, or that cannot be read
            folder = run_folder(runs_dir, asked)
            if is_pending(folder):
                log_from_here(folder / LOG_NAME)
                from dynlora.training.queued import check_queued as check

                refused |= {asked} if check(runs_dir, asked) is not None else set()
    sys.exit(2 if run_id in refused else 0)


def _order(line: str) -> dict[str, Any] | None:
    """Return the command that was sent, None when the input ended."""
    return json.loads(line) if line.strip() else None


def _import_all() -> None:
    """Import in a thread of lower priority; what fails here fails again, and is told, where it is needed.

    Linux has a priority for each thread, and none can be raised again: the main thread, which becomes the command,
    keeps its own. Elsewhere the priority is the process's and stays as it is.
    """
    if sys.platform == "linux":
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)
    for name in NEEDED:
        with suppress(Exception):
            importlib.import_module(name)
    with suppress(Exception):
        importlib.import_module("dynlora.strategies").registry()
