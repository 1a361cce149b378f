"""`dynlora track`: a run is written to trackers, while it trains or after. `dynlora import`: their runs are read."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dynlora.cli.options import PathOrName, in_rows, in_runs, reports
from dynlora.config import parse_config
from dynlora.errors import ConfigError, DataError
from dynlora.jobs.trackers import KNOWN, check_trackers
from dynlora.store.meta import section
from dynlora.store.reader import RunReader
from dynlora.store.schema import run_folder
from dynlora.store.tracker_notes import read_trackers

if TYPE_CHECKING:
    from dynlora.integrations.tracker_files.tracker_run import TrackerRun

Report = tuple[dict[str, Any], str]


@click.command()
@click.argument("run_id", metavar="ID")
@click.option(
    "--to",
    "names",
    default=None,
    metavar="NAMES",
    help=f"Of {', '.join(KNOWN)}; several with commas between. The default is log.to of the run.",
)
@in_runs
@reports
def track(*, run_id: str, names: str | None, runs_dir: Path) -> Report:
    """Write a run to trackers: until it has ended, or all at once where it has."""
    folder = run_folder(runs_dir, run_id)
    with RunReader(folder) as reader:
        trackers: Any = names or section(reader.meta(["config"]).get("config"), "log").get("to")
    chosen = parse_config({"log": {"to": trackers}}).log.to
    if not chosen:
        raise ConfigError(f"--to: the run has no log.to; give some of {', '.join(KNOWN)}")
    check_trackers(chosen)
    from dynlora.integrations.trackers.follow import follow

    addresses = follow(folder, list(dict.fromkeys(chosen)))
    document = {"id": run_id, "trackers": {name: vars(written) for name, written in addresses.items()}}
    lines = [f"{name}: {written.error or f'written to {written.place}'}" for name, written in addresses.items()]
    return document, "\n".join(lines)


def tracker_rows(folder: Path) -> dict[str, dict[str, Any]]:
    """Return what the trackers of a run have, by tracker: place, run, step, error, and the command that shows it."""
    from dynlora.integrations.trackers.places import place_of

    rows: dict[str, dict[str, Any]] = {}
    for name, written in read_trackers(folder).items():
        place = place_of(name, folder.parent, os.environ) if name in KNOWN else None
        view = place.view if place is not None and place.public_address == written.place else ""
        rows[name] = {**vars(written), "view": view}
    return rows


def format_trackers(rows: Mapping[str, Mapping[str, Any]]) -> str:
    """Return a line for each tracker of a run: where it is, how to see it, or what went wrong."""
    lines = []
    for name, row in in_rows(rows).items():
        how = f"; {row['error']}" if row["error"] else f" ({row['view']})" if row["view"] else ""
        lines.append(f"\n{name}: {row['place']}{how}")
    return "".join(lines)


@click.group(name="import")
def import_() -> None:
    """Import runs of trackers, to compare with others. Importing again brings what is new."""


def _importing(function: Callable[..., Report]) -> Callable[..., Report]:
    """Add what every import takes."""
    function = in_runs(reports(function))
    about = "Name of the data: runs of one name are compared with each other. The default is what the run says."
    function = click.option("--data", default=None, metavar="NAME", help=about)(function)
    about = "Name of the method, such as adalora. The default is what the run says."
    return click.option("--method", default=None, metavar="NAME", help=about)(function)


@import_.command()
@click.argument("folder", metavar="FOLDER", type=click.Path(exists=True, path_type=Path))
@_importing
def tensorboard(*, folder: Path, **options: Any) -> Report:
    """Import every run below a folder of event files."""
    check_trackers(["tensorboard"])
    from dynlora.integrations.tracker_files.tensorboard import tensorboard_runs

    return _imported(tensorboard_runs(folder), **options)


@import_.command()
@click.argument("source", metavar="FILE|PROJECT", type=PathOrName())
@_importing
def trackio(*, source: str, runs_dir: Path, **options: Any) -> Report:
    """Import every run of a project: its database, or its name where Trackio keeps it."""
    from dynlora.integrations.tracker_files.trackio import trackio_file, trackio_runs

    return _imported(trackio_runs(trackio_file(source, runs_dir)), runs_dir, **options)


@import_.command()
@click.argument("path", metavar="FILE", type=click.Path(path_type=Path))
@click.option("--experiment", default=None, metavar="NAME", help="Only the runs of this experiment.")
@_importing
def mlflow(*, path: Path, experiment: str | None, **options: Any) -> Report:
    """Import the runs of a database (SQLite). Artifacts are not opened."""
    from dynlora.integrations.tracker_files.mlflow import mlflow_runs

    return _imported(mlflow_runs(path, experiment), **options)


def _imported(runs: Iterable[TrackerRun], runs_dir: Path, method: str | None, data: str | None) -> Report:
    """Keep runs with numbers and say what became of each; what could not be read is said of all.

    Raises:
        DataError: when something could not be read, and nothing was left to import.
    """
    from dynlora.integrations.tracker_files.import_runs import import_run

    rows, left_out = [], []
    for run in runs:
        if run.series:
            rows.append(import_run(run, runs_dir, method=method, data=data))
        else:
            left_out += [f"{run.name}: {note}" for note in run.notes or ("has no numbers and is left out",)]
    if left_out and not rows:
        raise DataError(f"nothing was imported; {left_out[0]}; give a file that is whole")
    lines = in_rows(left_out)
    for row in rows:
        lines.append(f"{row.id}  {row.what:9}  {row.series:>4} series to step {row.steps:,}  {in_rows(row.name)}")
        lines += [f"    {note}" for note in in_rows(row.notes)]
    document = {"runs": [vars(row) for row in rows], "left_out": left_out}
    return document, "\n".join(lines) or "no runs with numbers were found"
