"""`dynlora queue`: what waits for its start, and moving one of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from dynlora.cli.options import in_runs, reports
from dynlora.errors import ConfigError
from dynlora.jobs import queue as run_queue
from dynlora.store.schema import run_folder
from dynlora.store.summary import run_summary


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
