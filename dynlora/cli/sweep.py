"""A sweep: one queued run per combination of listed values, or trials of a search and the best of them."""

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

from dynlora.cli.kinds import setting_options
from dynlora.cli.options import Real, Whole, configured, in_runs, reports
from dynlora.cli.run_commands import Report
from dynlora.config import RunConfig, parse_config
from dynlora.config_files import read_yaml, set_key, split_override, with_run_folder
from dynlora.errors import ConfigError
from dynlora.jobs import launch
from dynlora.jobs import queue as run_queue
from dynlora.jobs.queue import LOCK_WAIT_S, OPEN, QUEUE_LOCK, is_pending, put_in_queue, read_status
from dynlora.jobs.spawn import locked, own_folder, runs_root
from dynlora.jobs.sweep import SECTION, Request, choices_of, count, section_choices
from dynlora.store.lifecycle import unmark_active
from dynlora.store.notes import annotate_notes, read_notes
from dynlora.store.schema import command_text, new_run_id, run_folder
from dynlora.store.summary import run_summary

if TYPE_CHECKING:
    from dynlora.integrations.cluster import ClusterRequest
    from dynlora.integrations.search.driver import Space
    from dynlora.training.run import PlannedRun


def search(
    *,
    config: Path | None,
    overrides: tuple[str, ...],
    name: str | None,
    runs_dir: Path,
    **settings: Any,
) -> Report:
    """Search, confirm the best trial on new seeds, and say what came out.

    Args:
        config: file of the base.
        overrides: KEY=RANGE or KEY=A,B,C.
        name: of the study where `study` is not given.
        runs_dir: folder of the runs.
        settings: the fields of `Request`; None for the default.

    Raises:
        ConfigError: when what was asked for breaks a rule.
        UnknownStrategyError: when it names a method that does not exist.
        RunBusyError: when another process searches in the same study.
    """
    from dynlora.integrations.search.run import run_all, searches
    from dynlora.strategies import strategy_class

    base = read_yaml(config) if config is not None else {}
    listed = _texts(base.pop(SECTION, None))
    listed |= {split_override(one)[0]: one.partition("=")[2] for one in overrides}
    named = {} if name is None else {"study": name.replace(" ", "-")}
    given = {key: value for key, value in settings.items() if value is not None}
    request = Request.parse({**named, **given})
    studies = searches(request, base, listed)
    for name in {name for one in studies for name in _methods(one.base, one.space)}:
        strategy_class(name)
    outcomes = run_all(studies, runs_dir, request.confirm, lambda line: click.echo(line, err=True))
    document = {"studies": outcomes, "comparisons": comparisons(outcomes, runs_dir)}
    return document, words(document)


def _methods(base: Mapping[str, Any], space: Space) -> set[str]:
    """Return the names of the methods that a study trains."""
    from dynlora.integrations.search.driver import Choice

    varying = space.get("strategy.name")
    names = varying.values if isinstance(varying, Choice) else (base.get("strategy", {}).get("name", "dynamic"),)
    return {str(name) for name in names}


def _texts(section: Any) -> dict[str, str]:
    """Return the section `sweep` of a file as texts by key, as after `--set KEY=`."""
    if section is None:
        return {}
    if not isinstance(section, Mapping):
        raise ConfigError(f"{SECTION}={section!s:.60}: must be keys with values, such as `train.lr: 1e-4..1e-2:log`")
    return {str(key): ",".join(map(str, one)) if isinstance(one, list) else str(one) for key, one in section.items()}


def comparisons(studies: Sequence[Mapping[str, Any]], runs_dir: Path) -> list[dict[str, Any]]:
    """Return paired differences on the confirming seeds: each best to its default, and to the best of the first study.

    Each is {what, against, n, key, difference, low, high, outcome}; outcome is better, worse, unclear or few.
    """
    pairs = [(one, one, "best", "default") for one in studies]
    pairs += [(one, studies[0], "best", "best") for one in studies[1:]]
    rows = []
    for one, other, first, second in pairs:
        seeds = {row["seed"]: (row[first], None) for row in one["seeds"]}
        both = [(row["seed"], row[second], seeds[row["seed"]][0]) for row in other["seeds"] if row["seed"] in seeds]
        if compared := _compared(both, runs_dir, str(one["objective"])):
            what, against = (f"{side['study']}: {kind}" for side, kind in ((one, first), (other, second)))
            rows.append({"what": what, "against": against, **compared})
    return rows


def _compared(pairs: Sequence[tuple[int, str, str]], runs_dir: Path, objective: str) -> dict[str, Any]:
    """Return the paired difference of runs, second minus first, over seeds and rows; empty without pairs."""
    from dynlora.analysis.pairing import FEWEST_SEEDS, RunPairs, is_significant
    from dynlora.analysis.stats import paired_difference

    folders = {run: run_folder(runs_dir, run) for _, *both in pairs for run in both}
    summaries = {run: run_summary(folder) for run, folder in folders.items()}
    sides = RunPairs(folders, summaries, lambda query, folder, *rest: query(folder, *rest)).differences(pairs)
    known = [side for side in sides if side.differences]
    if not known:
        return {}
    side = next((side for side in known if side.key == objective), known[0])
    rows = list(side.differences.values())
    difference = paired_difference(rows)
    is_clear = is_significant(rows, difference)
    better = (difference.mean < 0) == side.low_is_good
    outcome = "few" if len(rows) < FEWEST_SEEDS else "unclear" if not is_clear else "better" if better else "worse"
    return {
        "n": len(rows),
        "key": side.key,
        "difference": difference.mean,
        "low": difference.low,
        "high": difference.high,
        "outcome": outcome,
    }


SAID = {
    "better": "better",
    "worse": "worse",
    "unclear": "not significantly different",
    "few": "not decided, with so few seeds",
}
"""Outcomes in words."""


def words(document: Mapping[str, Any]) -> str:
    """Return what a search found in words: the conclusion, then the best values of each study, then what mattered."""
    lines = [_compared_words(one) for one in document["comparisons"]]
    lines = lines or ["The best trial was not confirmed on new seeds; add --confirm 3 to the command."]
    for study in document["studies"]:
        lines += ["", *_study_words(study)]
    return "\n".join(lines)


def _compared_words(one: Mapping[str, Any]) -> str:
    """Return one comparison as a sentence."""
    mean, low, high = (f"{one[key]:+.4f}".replace("-", "−") for key in ("difference", "low", "high"))
    seeds = f"{one['n']} new seed{'' if one['n'] == 1 else 's'}"
    return (
        f"{one['what']} is {SAID[one['outcome']]} than {one['against']}"
        if one["outcome"] in ("better", "worse")
        else f"{one['what']} against {one['against']}: {SAID[one['outcome']]}"
    ) + f" ({one['key']} {mean}, 95 % CI {low} to {high}, {seeds})"


def _study_words(study: Mapping[str, Any]) -> list[str]:
    """Return the best trial of a study, what to set, and which settings mattered."""
    states = [trial["state"] for trial in study["trials"]]
    stopped = [trial.get("status") for trial in study["trials"]].count("stopped early")
    other = len(states) - states.count("complete") - stopped
    count = f"{len(states)} trials, {stopped} stopped early, {other} without a result"
    best = study["best"]
    if best is None:
        return [f"{study['study']}: no trial finished ({count}); widen the ranges, or look at the runs tagged with it"]
    chosen = " ".join(f"--set {key}={_plain(value)}" for key, value in best["values"].items())
    default = study["default"]["value"]
    beside = "" if default is None else f"; default {default:.4f}, same seed and rows, so that the best looks too good"
    lines = [
        f"{study['study']}: {study['objective']} {best['value']:.4f}, trial {best['number'] + 1} of {count}{beside}",
        f"  {chosen}",
    ]
    if study["importance"]:
        lines.append(
            "  what mattered: " + ", ".join(f"{key} {100 * x:.0f} %" for key, x in study["importance"].items())
        )
    return lines


def _plain(value: Any) -> str:
    """Return a value as it is written after `--set KEY=`."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


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
    from dynlora.integrations.cluster import ClusterRequest, Driver, connected

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
@setting_options(Request)
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
    from dynlora.training.run import plans

    settings = [with_run_folder(one, runs_dir) for one in combinations(base, choices, name)]
    # all are checked before the first folder is made
    return settings, plans(settings)


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
        config = parse_config(values)
        varying = {key: value for key, value in chosen.items() if len(choices[key]) > 1}
        title = _title(config, name or values.get("name"), varying)
        configs.append(config if title is None else parse_config({**values, "name": title[:500]}))
    return configs


def _title(config: RunConfig, name: str | None, varying: Mapping[str, Any]) -> str | None:
    """Return the name of a run of a sweep, as single runs are named: dynamic on tickets, rank 4, seed 0.

    Args:
        config: of the run.
        name: of the sweep, which comes first; None for none.
        varying: the values that vary, by dotted key.

    Returns:
        None where nothing varies and no name was given.
    """
    if not varying:
        return name
    section = varying.get("strategy")
    own = dict(section) if isinstance(section, Mapping) else {}
    method = " ".join([config.strategy.name, *(f"{key} {value}" for key, value in own.items() if key != "name")])
    is_method = own or "strategy.name" in varying
    first = [name, method if is_method else ""] if name else [f"{method} on {Path(config.data.source).name}"]
    named = ("seed", "strategy", "strategy.name", *(() if name else ("data.name", "data.path")))
    others = [f"{_short(key)} {value}" for key, value in varying.items() if key not in named]
    seed = f"seed {config.seed}" if "seed" in varying or not name else ""
    return ", ".join(filter(None, [*first, *others, seed]))


def _short(key: str) -> str:
    """Return the last part of a dotted key; of a name what it names."""
    section, _, last = key.rpartition(".")
    return section if last in ("name", "path") and section else last


def _wait(runs_dir: Path, ids: list[str]) -> None:
    """Wait until runs have ended, keeping the queue moving."""
    open_ids = set(ids)
    while open_ids:
        time.sleep(1)
        launch.wake(runs_dir)
        open_ids = {i for i in open_ids if run_summary(run_folder(runs_dir, i)).status in OPEN}


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
        {"position": place, "id": waiting, "name": run_summary(run_folder(runs_dir, waiting)).name}
        for place, waiting in enumerate(line, 1)
    ]
    words = "\n".join(f"{row['position']:>3}  {row['id']}  {row['name']}" for row in rows)
    return rows, words or "no run waits in the queue"
