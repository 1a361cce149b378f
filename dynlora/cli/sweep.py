"""A sweep: one queued run per combination of listed values."""

from __future__ import annotations

import copy
import itertools
import re
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from dynlora.cli.options import Real, Whole, configured, in_runs, reports
from dynlora.cli.run_commands import Report
from dynlora.config import RunConfig, parse_config
from dynlora.config_files import read_yaml, set_key, split_override, with_run_folder
from dynlora.errors import ConfigError
from dynlora.jobs import launch
from dynlora.jobs import queue as run_queue
from dynlora.jobs.queue import LOCK_WAIT_S, OPEN, QUEUE_LOCK, is_pending, put_in_queue, read_status
from dynlora.jobs.spawn import locked, own_folder, runs_root
from dynlora.jobs.sweep import MOST_SEEDS, MOST_TRIALS, SECTION, choices_of, count, section_choices
from dynlora.store.lifecycle import unmark_active
from dynlora.store.notes import annotate_notes, read_notes
from dynlora.store.schema import command_text, new_run_id, run_folder
from dynlora.store.summary import run_summary

if TYPE_CHECKING:
    from dynlora.integrations.clusters.engine import ClusterRequest
    from dynlora.training.run import PlannedRun


SWEEPS_DIR = ".sweeps"
"""Folder of a runs folder with a lock for each sweep that is on a cluster."""

OVER = ("finished", "stopped", "failed")
"""States of a run that `--again` leaves alone."""

_TAG = re.compile(r"[0-9A-Za-z][0-9A-Za-z_-]{0,39}\Z")


def cluster_options(function: Callable[..., Any]) -> Callable[..., Any]:
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


@click.command()
@configured
@in_runs
@click.option("--wait", is_flag=True, help="Wait for all runs to end.")
@click.option(
    "--search",
    "is_search",
    is_flag=True,
    help="Search instead, with Optuna: --set key=1e-4..1e-2:log, 0.0..0.3, 1..16 or a,b,c. Waits for its runs.",
)
@click.option(
    "--trials",
    type=Whole(1, MOST_TRIALS),
    default=20,
    show_default=True,
    help="Search: trials of each study, earlier ones included.",
)
@click.option("--study", default=None, metavar="NAME", help="Search: name of the study; one that exists continues.")
@click.option("--objective", default="loss", show_default=True, metavar="METRIC", help="Search: what is made best.")
@click.option("--sampler", type=click.Choice(["tpe", "random"]), default="tpe", show_default=True, help="Search.")
@click.option("--pruner", type=click.Choice(["median", "none"]), default="median", show_default=True, help="Search.")
@click.option("--each", default="", metavar="KEY=A,B", help="Search: a study for each value, with as many trials each.")
@click.option("--rates", is_flag=True, help="Search: learning rates over a wide range; with --each, tuned fairly.")
@click.option(
    "--confirm",
    type=Whole(0, MOST_SEEDS),
    default=3,
    show_default=True,
    metavar="SEEDS",
    help="Search: new seeds for the best and the default.",
)
@cluster_options
@reports
def sweep(is_search: bool, wait: bool, on: str | None, **options: Any) -> Any:
    """Queue one run per combination of values: --set key=a,b,c, or key=0..4 for whole numbers.

    With --on ray they train on a cluster, several at a time.
    """
    plain = ("config", "overrides", "name", "runs_dir")
    machines = {key: options.pop(key) for key in ("address", "cpus", "gpus", "again")}
    if on and is_search:
        raise ConfigError("--on ray: a search decides run by run and uses this machine's queue; drop --on or --search")
    if on:
        given = {key: options[key] for key in plain}
        return sweep_on_ray(lambda: checked(**given)[1], options["runs_dir"], **machines)
    _check_used(machines, "a cluster; add --on ray")
    if is_search:
        from dynlora.cli.search import search

        return search(**options)
    _check_used(options.keys() - set(plain), "a search; add --search")
    return queue_all(wait=wait, **{key: options[key] for key in plain})


def _check_used(names: Iterable[str], what: str) -> None:
    """Refuse options that nothing would use.

    Raises:
        ConfigError: for the first that was given.
    """
    context = click.get_current_context()
    for name in sorted(names):
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            raise ConfigError(f"--{name}: belongs to {what}, or drop it")


def queue_all(
    *, config: Path | None, overrides: tuple[str, ...], name: str | None, runs_dir: Path, wait: bool
) -> Report:
    """Queue one run per combination of the listed values."""
    settings, plans = checked(config, overrides, name, runs_dir)
    ids = [run.name for run in put_in_queue(runs_dir, [partial(plan.create, runs_dir, "queued") for plan in plans])]
    launch.wake(runs_dir)
    if wait:
        _wait(runs_dir, ids)
    return [
        {"id": run_id, "name": item.title, "status": "queued"} for run_id, item in zip(ids, settings, strict=True)
    ], "\n".join(ids)


def checked(
    config: Path | None, overrides: tuple[str, ...], name: str | None, runs_dir: Path
) -> tuple[list[RunConfig], list[PlannedRun]]:
    """Return one configuration per combination of the listed values, and each checked whole; nothing is written.

    `--set` wins over the file's section `sweep`.

    Raises:
        ConfigError: when no setting is listed.
        DynloraError: when one of them cannot be used.
    """
    base = read_yaml(config) if config is not None else {}
    choices = section_choices(base.pop(SECTION, None))
    for override in overrides:
        key, _ = split_override(override)
        choices[key] = choices_of(override.partition("=")[2])
    if not choices:
        single = command_text("train", runs_dir=runs_dir)
        raise ConfigError(
            "--set: a sweep needs a setting and its values; give one, such as --set seed=0..4, or a file with a "
            f"section `{SECTION}`, or start a single run with `{single}`"
        )
    count(choices)
    from dynlora.training.run import plan

    settings = [with_run_folder(one, runs_dir) for one in combinations(base, choices, name)]
    return settings, [plan(item) for item in settings]  # all are checked before the first folder is made


def combinations(base: Mapping[str, Any], choices: Mapping[str, list[Any]], name: str | None) -> list[RunConfig]:
    """Return one configuration per combination, named after the values that vary.

    Raises:
        ConfigError: for the first one that breaks a rule.
    """
    configs: list[RunConfig] = []
    for combination in itertools.product(*choices.values()):
        chosen = dict(zip(choices, combination, strict=True))
        values = copy.deepcopy(dict(base))
        for key, value in chosen.items():
            set_key(values, key, copy.deepcopy(value))
        varying = [_spelled(key, value) for key, value in chosen.items() if len(choices[key]) > 1]
        title = " ".join(filter(None, [name or values.get("name"), *varying]))[:500]
        configs.append(parse_config({**values, "name": title or None}))
    return configs


def _spelled(key: str, value: Any) -> str:
    """Return a key and its value as a part of a run's name; of a section its `name`, then what else it sets."""
    if not isinstance(value, Mapping):
        return f"{key}={value}"
    inner = dict(value)
    first = [f"{key}={inner.pop('name')}"] if "name" in inner else []
    return " ".join([*first, *(f"{part}={inner[part]}" for part in inner)])


def _wait(runs_dir: Path, ids: list[str]) -> None:
    """Wait until runs have ended, keeping the queue moving."""
    open_ids = set(ids)
    while open_ids:
        time.sleep(1)
        launch.wake(runs_dir)
        open_ids = {i for i in open_ids if run_summary(run_folder(runs_dir, i))["status"] in OPEN}


@click.command()
@click.argument("run_id", metavar="[ID]", required=False)
@click.option(
    "--move", type=click.Choice(list(run_queue.MOVES)), default=None, help="Where to move the run within the queue."
)
@in_runs
@reports
def queue(run_id: str | None, move: str | None, runs_dir: Path) -> Any:
    """List the runs that wait in the queue, the next one first, or move one: ID --move first."""
    if (run_id is None) != (move is None):
        given, missing = (f"ID={run_id}", "--move") if move is None else (f"--move={move}", "ID")
        raise ConfigError(f"{given}: a move takes a run and a place; give {missing} too")
    if run_id is not None and move is not None:
        position, of = run_queue.move(runs_dir, run_id, move)
        return {"id": run_id, "position": position, "waiting": of}, f"{run_id} is at position {position} of {of}"
    line = run_queue.in_line(runs_dir)
    rows = [
        {"position": place, "id": waiting, "name": run_summary(run_folder(runs_dir, waiting))["name"]}
        for place, waiting in enumerate(line, 1)
    ]
    words = "\n".join(f"{row['position']:>3}  {row['id']}  {row['name']}" for row in rows)
    return rows, words or "no run waits in the queue"
