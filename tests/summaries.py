"""Summaries of runs that say little."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from dynlora.store.summary import RunSummary


def summary_with(values: Mapping[str, Any]) -> RunSummary:
    """Return the summary of a run that says this, and nothing else."""
    return RunSummary.model_construct(**{"id": "", "name": "", "status": "finished", **values})


def summaries_of(rows: Iterable[Mapping[str, Any]]) -> dict[str, RunSummary]:
    """Return the summaries of runs that say this, by their id."""
    return {row["id"]: summary_with(row) for row in rows}
