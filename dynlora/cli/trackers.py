"""`dynlora track`: a run is written to trackers, while it trains or after."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from dynlora.cli.options import in_runs, reports
from dynlora.config import parse_config
from dynlora.errors import ConfigError
from dynlora.jobs.trackers import KNOWN, check_trackers
from dynlora.store.meta import section
from dynlora.store.reader import RunReader
from dynlora.store.schema import run_folder
from dynlora.store.tracker_notes import read_trackers

Report = tuple[dict[str, Any], str]


@click.command()
@click.argument("run_id", metavar="ID")
@click.option(
    "--to", "names", default=None, metavar="NAMES",
    help=f"Of {', '.join(KNOWN)}; several with commas between. The default is log.to of the run.",
)  # fmt: skip
@in_runs
@reports
def track(*, run_id: str, names: str | None, runs_dir: Path) -> Report:
    """Write a run to trackers: until it has ended, or all at once where it has."""
    folder = run_folder(runs_dir, run_id)
    with RunReader(folder) as reader:
        asked: Any = names or section(reader.meta(["config"]).get("config"), "log").get("to")
    chosen = parse_config({"log": {"to": asked}}).log.to
    if not chosen:
        raise ConfigError(f"--to: the run has no log.to; give some of {', '.join(KNOWN)}")
    check_trackers(chosen)
    from dynlora.integrations.trackers.follow import follow

    found = follow(folder, list(dict.fromkeys(chosen)))
    document = {"id": run_id, "trackers": {name: vars(written) for name, written in found.items()}}
    lines = [f"{name}: {written.error or f'written to {written.place}'}" for name, written in found.items()]
    return document, "\n".join(lines)


def tracker_rows(folder: Path) -> dict[str, dict[str, Any]]:
    """Return what the trackers of a run have, by tracker: place, run, step, error, and the command that shows it."""
    from dynlora.integrations.trackers.places import place_of

    rows: dict[str, dict[str, Any]] = {}
    for name, written in read_trackers(folder).items():
        place = place_of(name, folder.parent, os.environ) if name in KNOWN else None
        view = place.view if place is not None and place.address == written.place else ""
        rows[name] = {**vars(written), "view": view}
    return rows


def format_trackers(rows: Mapping[str, Mapping[str, Any]]) -> str:
    """Return a line for each tracker of a run: where it is, how to see it, or what went wrong."""
    lines = []
    for name, row in rows.items():
        how = f"; {row['error']}" if row["error"] else f" ({row['view']})" if row["view"] else ""
        lines.append(f"\n{name}: {row['place']}{how}")
    return "".join(lines)
