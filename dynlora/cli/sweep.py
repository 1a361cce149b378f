"""A sweep: one queued run per combination of listed values."""

from __future__ import annotations

import copy
import itertools
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dynlora.cli import cluster
from dynlora.cli.options import Whole, configured, in_runs, reports
from dynlora.cli.run_commands import Report
from dynlora.config import RunConfig, parse_config
from dynlora.config_files import read_yaml, set_key, split_override, with_run_folder
from dynlora.errors import ConfigError
from dynlora.jobs import launch
from dynlora.jobs import queue as run_queue
from dynlora.jobs.queue import OPEN, put_in_queue
from dynlora.jobs.sweep import MOST_SEEDS, MOST_TRIALS, SECTION, choices_of, count, section_choices
from dynlora.store.schema import command_text, run_folder
from dynlora.store.summary import run_summary

if TYPE_CHECKING:
    from dynlora.training.plan import PlannedRun


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
@cluster.options
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
        return cluster.sweep_on_ray(lambda: checked(**given)[1], options["runs_dir"], **machines)
    if machines["again"] or machines["address"]:
        raise ConfigError("--again, --address: belong to a cluster; add --on ray, or drop them")
    if is_search:
        from dynlora.cli.search import search

        return search(**options)
    return queue_all(wait=wait, **{key: options[key] for key in plain})


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
    from dynlora.training.plan import plan

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
