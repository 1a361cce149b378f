"""Commands that send runs elsewhere and fetch them: a bucket, a shared disk, the hub, trackers; and their import."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dynlora.addresses import without_secrets
from dynlora.cli.options import MOST_SECONDS, PathOrName, Real, in_rows, in_runs, of_run, printable, reports, tell
from dynlora.config import parse_config
from dynlora.errors import ConfigError, DataError, RemoteError, StorageError
from dynlora.jobs.trackers import KNOWN, check_trackers
from dynlora.store.meta import section
from dynlora.store.notes import read_trackers
from dynlora.store.reader import RunReader
from dynlora.store.schema import run_folder
from dynlora.text import plural

if TYPE_CHECKING:
    from dynlora.remote.place import Place
    from dynlora.remote.sync import Outcome


checkpoints = click.option(
    "--with-checkpoint/--without-checkpoint",
    "with_checkpoint",
    default=None,
    help="Send what training continues from as well; unless given, as the run was sent before, at first without.",
)
replacing = click.option("--replace", is_flag=True, help="Move another run of that id here to the trash.")
LISTED = 5
"""Ids that a message names."""

Sent = tuple[dict[str, Any], str, int]
"""Document, words and exit code."""


@click.command()
@click.argument("targets", metavar="ID... URL", nargs=-1, required=True, type=PathOrName())
@checkpoints
@click.option("--force", is_flag=True, help="Also over a later state of the run.")
@in_runs
@reports
def push(targets: tuple[str, ...], with_checkpoint: bool | None, force: bool, runs_dir: Path) -> Sent:
    """Send runs, finished or training, to a folder at URL, such as s3://bucket/runs or a path."""
    from dynlora.remote.place import Place
    from dynlora.remote.sync import check_target
    from dynlora.remote.sync import push as send

    *ids, url = targets
    if not ids:
        raise ConfigError(
            f"push {without_secrets(url)}: needs the id of a run and a URL; such as `dynlora push ID s3://bucket/runs`"
        )
    folders = [run_folder(runs_dir, run_id) for run_id in dict.fromkeys(ids)]
    place = Place(url)
    if len(folders) == 1 and place.name == folders[0].name:
        place = place.parent()
    _check_kept(place)
    check_target(place, runs_dir)

    def one(folder: Path) -> Outcome:
        return send(folder, place, with_checkpoint=with_checkpoint, force=force)

    return _report(place, _all_or_one(folders, one, lambda folder: folder.name))


@click.command()
@click.argument("url", metavar="URL", type=PathOrName())
@click.argument("run_ids", metavar="[ID...]", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="Fetch every run of the folder.")
@replacing
@in_runs
@reports
def pull(url: str, run_ids: tuple[str, ...], everything: bool, replace: bool, runs_dir: Path) -> Sent:
    """Fetch the run at URL, or runs of the folder at URL: ids, or --all."""
    from dynlora.remote.place import Place
    from dynlora.remote.sync import pull as fetch
    from dynlora.remote.sync import pull_all
    from dynlora.store.schema import check_run_id

    place, ids = Place(url), [check_run_id(run_id) for run_id in dict.fromkeys(run_ids)]
    if everything:
        if ids:
            raise ConfigError("--all: fetches every run, so no ID may be given; leave one of them out")
        return _report(place, pull_all(place, runs_dir, replace=replace))
    if not ids:
        place, ids = _run_at(place)

    def one(run_id: str) -> Outcome:
        return fetch(place, run_id, runs_dir, replace=replace)

    return _report(place, _all_or_one(ids, one, str))


@click.command()
@click.argument("url", metavar="URL", type=PathOrName())
@click.option("--pull", "fetches", is_flag=True, help="Fetch what is new there, instead of sending what is new here.")
@checkpoints
@replacing
@click.option("--every", type=Real(1, MOST_SECONDS), metavar="SECONDS", help="Do it again and again until Ctrl-C.")
@in_runs
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")
def sync(
    url: str,
    fetches: bool,
    with_checkpoint: bool | None,
    replace: bool,
    every: float | None,
    runs_dir: Path,
    as_json: bool,
) -> None:
    """Send every run that is new or has changed to the folder at URL, or fetch those; what is equal stays."""
    from dynlora.remote.place import Place
    from dynlora.remote.sync import pull_all, push_all

    if fetches and with_checkpoint is not None or replace and not fetches:
        option = "--replace" if replace and not fetches else "--with-checkpoint"
        raise ConfigError(f"{option}: is for {'--pull' if replace else 'sending'} alone; leave it out")
    place = Place(url)
    if not fetches:
        _check_kept(place)

    def look() -> list[Outcome]:
        if fetches:
            return pull_all(place, runs_dir, replace=replace)
        return push_all(runs_dir, place, with_checkpoint=with_checkpoint)

    document, words, code = _report(place, look())
    if every is None:
        tell(document, words, as_json=as_json)
        sys.exit(code)
    with suppress(KeyboardInterrupt):
        while True:
            click.echo(json.dumps(document) if as_json else printable(words))
            document, words, _ = _report(place, _looked_again(look, every))


def _check_kept(place: Place) -> None:
    """Refuse to send runs to the memory of this command, which ends with it.

    Raises:
        ConfigError: when the place is such.
    """
    if place.protocol == "memory":
        raise ConfigError(
            f"URL {place.address}: is the memory of this command, gone when it ends; give a folder or a bucket"
        )


def _looked_again(look: Callable[[], list[Outcome]], every: float) -> list[Outcome]:
    """Look again after a while; a place that is away meanwhile, or a full disk, is said once and ends nothing."""
    message = ""
    while True:
        time.sleep(every)
        try:
            return look()
        except (RemoteError, StorageError) as error:
            before, message = message, f"{error}; next check in {every:g} s"
        if message != before:
            click.echo(printable(message), err=True)


def _run_at(place: Place) -> tuple[Place, list[str]]:
    """Return the folder and the id of the run at an address.

    Raises:
        ConfigError: when it is the address of a folder of runs, or of nothing.
    """
    from dynlora.remote.sync import manifests, read_manifest
    from dynlora.store.schema import check_run_id

    with suppress(ConfigError):
        run_id = check_run_id(place.name)
        if read_manifest(place.parent(), run_id) is not None:
            return place.parent(), [run_id]
    ids = list(manifests(place))
    if not ids:
        raise ConfigError(f"URL {place.address}: holds no run; look at the address")
    named = ", ".join(ids[:LISTED]) + (", ..." if len(ids) > LISTED else "")
    raise ConfigError(
        f"URL {place.address}: is a folder of {plural(len(ids), 'run')} ({named}); name some of them, or add --all"
    )


def _all_or_one(items: Sequence[Any], one: Callable[[Any], Outcome], name: Callable[[Any], str]) -> list[Outcome]:
    """Return what became of runs; of a single one, what goes wrong is the command's own error."""
    from dynlora.remote.sync import each

    return [one(items[0])] if len(items) == 1 else each(items, one, name)


def _report(place: Place, outcomes: list[Outcome]) -> Sent:
    """Return what became of runs; the exit code is 1 where one failed."""
    document = {"url": place.address, "runs": [asdict(outcome) for outcome in outcomes]}
    moved = [outcome for outcome in outcomes if outcome.status != "unchanged"]
    size = sum(outcome.moved_bytes for outcome in outcomes) / 1e6
    unchanged = f"{len(outcomes) - len(moved)} of {len(outcomes)} runs unchanged"
    lines = [*map(_line, moved), f"{place.address}: {unchanged}, {size:.1f} MB moved"]
    return document, "\n".join(lines), int(any(outcome.status == "failed" for outcome in outcomes))


def _line(outcome: Outcome) -> str:
    rest = outcome.error or (f"{outcome.moved_bytes / 1e6:.1f} MB" if outcome.moved_bytes else "")
    return f"{outcome.id:30} {outcome.status:12} {rest}".rstrip()


Report = tuple[dict[str, Any], str]


@click.command()
@click.option(
    "--to",
    "names",
    default=None,
    metavar="NAMES",
    help=f"Of {', '.join(KNOWN)}; several with commas between. The default is log.to of the run.",
)
@of_run
@reports
def track(*, folder: Path, names: str | None) -> Report:
    """Write a run to trackers: until it has ended, or all at once where it has."""
    with RunReader(folder) as reader:
        trackers: Any = names or section(reader.meta(["config"]).get("config"), "log").get("to")
    chosen = parse_config({"log": {"to": trackers}}).log.to
    if not chosen:
        raise ConfigError(f"--to: the run has no log.to; give some of {', '.join(KNOWN)}")
    check_trackers(chosen)
    from dynlora.integrations.trackers.follow import follow

    addresses = follow(folder, list(dict.fromkeys(chosen)))
    document = {"id": folder.name, "trackers": {name: vars(written) for name, written in addresses.items()}}
    lines = [f"{name}: {written.error or f'written to {written.place}'}" for name, written in addresses.items()]
    return document, "\n".join(lines)


def tracker_rows(folder: Path) -> dict[str, dict[str, Any]]:
    """Return what the trackers of a run have, by tracker: place, run, step, error, and the command that shows it."""
    from dynlora.integrations.trackers.base import place_of

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
