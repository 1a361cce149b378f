"""`dynlora sweep --on ray`: the runs of a sweep train on a cluster; `--again TAG` continues the unfinished."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dynlora.cli.options import Real, Whole
from dynlora.cli.run_commands import Report
from dynlora.errors import ConfigError
from dynlora.jobs.queue import LOCK_WAIT_S, QUEUE_LOCK, is_pending, read_status
from dynlora.jobs.spawn import locked, own_folder, runs_root
from dynlora.store.lifecycle import unmark_active
from dynlora.store.notes import annotate_notes, read_notes
from dynlora.store.schema import command_text, new_run_id

if TYPE_CHECKING:
    from dynlora.integrations.clusters.engine import ClusterRequest
    from dynlora.training.plan import PlannedRun

SWEEPS_DIR = ".sweeps"
"""Folder of a runs folder with a lock for each sweep that is on a cluster."""

OVER = ("finished", "stopped", "failed")
"""States of a run that `--again` leaves alone."""

_TAG = re.compile(r"[0-9A-Za-z][0-9A-Za-z_-]{0,39}\Z")


def options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of a cluster."""
    for option in (
        click.option("--again", default=None, metavar="TAG", help="With --on: continue this sweep's unfinished runs."),
        click.option("--gpus", type=Real(0, 1024), default=0.0, show_default=True, help="Of each run."),
        click.option("--cpus", type=Whole(1, 1024), default=1, show_default=True, help="Of each run, and its threads."),
        click.option(
            "--address", default=None, metavar="ADDRESS", help="Of a cluster: auto or HOST:PORT; else one starts here."
        ),
        click.option("--on", type=click.Choice(["ray"]), default=None, help="Train on a Ray cluster, and wait."),
    ):
        function = option(function)
    return function


def sweep_on_ray(
    plan_all: Callable[[], Sequence[PlannedRun]], runs_dir: Path, again: str | None, **settings: Any
) -> Report:
    """Train the runs of a sweep on a cluster and return how they ended.

    Args:
        plan_all: checks all runs of a new sweep; it is not called with `again`.
        runs_dir: folder of the runs, which all nodes see.
        again: tag of a sweep that continues.
        settings: the fields of `ClusterRequest`.

    Raises:
        ConfigError: when what was asked for breaks a rule.
        RunBusyError: when another command waits for the same sweep.
    """
    from dynlora.integrations.clusters.engine import ClusterRequest, Driver, connected

    root, tag = runs_root(runs_dir, make=True), _checked(again) if again else f"ray-{new_run_id()}"
    cluster = ClusterRequest(**settings)
    with connected(cluster) as ray, locked(own_folder(root, SWEEPS_DIR) / f"{tag}.lock", 0.5):
        driver = Driver(ray, cluster, root, _say)
        ids = _unfinished(root, tag) if again else _created(root, plan_all(), tag)
        continues = f"`{_again(cluster, runs_dir, tag)}`"
        _say(f"sweep {tag}: {len(ids)} runs; if this command ends first, {continues} continues them")
        try:
            ended = driver.train(ids)
        except KeyboardInterrupt:
            _say(f"ended; runs that trained are interrupted at their last checkpoint; {continues} continues them")
            sys.exit(130)
    return _reported(tag, ids, ended)


def _say(line: str) -> None:
    """Print a line for a person."""
    click.echo(line, err=True)


def _checked(tag: str) -> str:
    """Return the tag of a sweep.

    Raises:
        ConfigError: when none can have it.
    """
    if not _TAG.match(tag):
        raise ConfigError(f"--again {tag[:60]!r}: must be the tag of a sweep, letters, digits, '-' and '_', at most 40")
    return tag


def _again(cluster: ClusterRequest, runs_dir: Path, tag: str) -> str:
    """Return the command that continues a sweep."""
    address = ["--address", cluster.address] if cluster.address else []
    machines = ["--on", "ray", *address, "--cpus", str(cluster.cpus), "--gpus", f"{cluster.gpus:g}"]
    return command_text("sweep", *machines, "--again", tag, runs_dir=runs_dir)


def _created(root: Path, planned: Sequence[PlannedRun], tag: str) -> list[str]:
    """Make the folders of checked runs, tagged, and out of the sight of this machine's queue; return the ids."""
    ids: list[str] = []
    for item in planned:
        with locked(root / QUEUE_LOCK, LOCK_WAIT_S):  # whoever starts queued runs holds it
            folder = item.create(root, "queued")
            unmark_active(root, folder.name)
        annotate_notes(folder, add=[tag])
        ids.append(folder.name)
    return ids


def _unfinished(root: Path, tag: str) -> list[str]:
    """Return the runs with a tag that are not over; those that wait in this machine's queue leave it.

    Raises:
        ConfigError: when there are none.
    """
    tagged = sorted(path.parent for path in root.glob("[0-9A-Za-z]*/run.db") if tag in read_notes(path.parent).tags)
    if not tagged:
        raise ConfigError(
            f"--again {tag}: no run in {root} has this tag; `{command_text('runs', runs_dir=root)}` shows the tags"
        )
    unfinished: list[str] = []
    for folder in tagged:
        with locked(root / QUEUE_LOCK, LOCK_WAIT_S):
            if read_status(folder).status in OVER:
                continue
            if is_pending(folder):
                unmark_active(root, folder.name)
        unfinished.append(folder.name)
    if not unfinished:
        again = command_text("resume", "ID", runs_dir=root)
        raise ConfigError(f"--again {tag}: its {len(tagged)} runs have ended; `{again}` takes up a stopped one")
    return unfinished


def _reported(tag: str, ids: Sequence[str], ended: dict[str, str]) -> Report:
    """Return how the runs ended, as a document and in words."""
    rows = [{"id": run_id, "status": ended[run_id]} for run_id in ids]
    done = sum(row["status"] == "finished" for row in rows)
    lines = [f"{row['id']}: {row['status']}" for row in rows if row["status"] != "finished"]
    return {"sweep": tag, "runs": rows}, "\n".join([f"{tag}: {done} of {len(rows)} finished", *lines])
