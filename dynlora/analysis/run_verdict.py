"""The verdict on one run among the runs in its folder, for whoever has no page: the command line and reports."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from dynlora.analysis.paired_rows import RunPairs
from dynlora.analysis.pairing import same_task
from dynlora.analysis.verdict import Verdict, verdict
from dynlora.errors import DynloraError
from dynlora.store import queries
from dynlora.store.summary import RunSummary

MOST_READ = 30
"""Most other runs of a task that are opened for a verdict."""


def run_verdict(folder: Path, summary: Mapping[str, Any]) -> Verdict | None:
    """Return the verdict on a finished run; None where it is not finished, or another run cannot be read.

    Args:
        folder: of the run.
        summary: as `queries.run_summary` returns it.
    """
    if summary["status"] != "finished":
        return None
    alike = same_task(queries.list_runs(folder.parent), summary)
    ids = alike.loc[alike["status"] == "finished", "id"].head(MOST_READ)
    folders = {folder.name: folder} | {run: folder.parent / run for run in ids}
    summaries = {run: one for run, path in folders.items() if (one := _summary(path)) is not None}
    try:
        return verdict(summaries, RunPairs(folders, summaries, _ask).differences, focus=folder.name)
    except DynloraError:  # of another run
        return None


def _summary(folder: Path) -> RunSummary | None:
    try:
        return queries.run_summary(folder)
    except DynloraError:
        return None


def _ask(query: Callable[..., Any], folder: Path, *arguments: Any) -> Any:
    """Ask the store; nothing is kept, since a report asks once."""
    return query(folder, *arguments)
