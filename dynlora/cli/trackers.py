"""`dynlora track`: a run is written to trackers, while it trains or after. `dynlora import` reads TensorBoard's."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from dynlora.cli.options import in_rows, in_runs, reports
from dynlora.config import parse_config
from dynlora.errors import ConfigError, DataError
from dynlora.jobs.trackers import KNOWN, check_trackers
from dynlora.store.meta import section
from dynlora.store.notes import read_trackers
from dynlora.store.reader import RunReader
from dynlora.store.schema import run_folder

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


class _Imports(click.Group):
    """The commands of `dynlora import`; it says what to do with runs of trackers that are not read."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command that is named.

        Raises:
            ConfigError: when it was one of Trackio or MLflow.
        """
        if args[0] in ("mlflow", "trackio"):
            title = KNOWN[args[0]].title
            raise ConfigError(
                f"import {args[0]}: runs of {title} are not read; "
                "write event files of TensorBoard, and import them with dynlora import tensorboard FOLDER"
            )
        return super().resolve_command(ctx, args)


@click.group(name="import", cls=_Imports)
def import_() -> None:
    """Import runs of TensorBoard, to compare with others. Importing again brings what is new."""


@import_.command()
@click.argument("folder", metavar="FOLDER", type=click.Path(exists=True, path_type=Path))
@click.option(
    "--method",
    default=None,
    metavar="NAME",
    help="Name of the method, such as adalora. The default is what the run says.",
)
@click.option(
    "--data",
    default=None,
    metavar="NAME",
    help="Name of the data: runs of one name are compared with each other. The default is what the run says.",
)
@in_runs
@reports
def tensorboard(*, folder: Path, runs_dir: Path, method: str | None, data: str | None) -> Report:
    """Import every run below a folder of event files."""
    check_trackers(["tensorboard"])
    from dynlora.integrations.tracker_files.import_runs import import_run
    from dynlora.integrations.tracker_files.tensorboard import tensorboard_runs

    rows, left_out = [], []
    for run in tensorboard_runs(folder):
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
