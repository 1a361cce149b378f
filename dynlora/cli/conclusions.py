"""The conclusions about a run, for `show --json`: the verdict against plain LoRA, and its ranks as a LoraConfig."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from dynlora.cli.kinds import conclusion_of
from dynlora.errors import DynloraError
from dynlora.store.kinds import TRAIN

MOST_READ = 30
"""Most other runs of a task that are opened for a verdict."""


def conclusions(folder: Path, summary: Mapping[str, Any]) -> dict[str, Any]:
    """Return `verdict`, `lora_config` and `conclusion`, a sentence; each None where there is none.

    Args:
        folder: of the run.
        summary: as `queries.run_summary` returns it.
    """
    if summary["kind"] != TRAIN:
        return {"verdict": None, "lora_config": None, "conclusion": conclusion_of(folder, summary["kind"])}
    found, config = _verdict(folder, summary), lora_config(summary, summary["ranks"])
    return {"verdict": found, "lora_config": config, "conclusion": found and found["text"]}


def lora_config(summary: Mapping[str, Any], ranks: Mapping[str, int]) -> dict[str, Any] | None:
    """Return ranks as the arguments of PEFT's `LoraConfig`: target_modules, r, lora_alpha and the patterns.

    Args:
        summary: of the run whose scaling they keep.
        ranks: by module.
    """
    from dynlora.viz.ranks.model import lora_settings

    found = lora_settings(summary, ranks)
    if found is None:
        return None
    return {key: value for key, value in asdict(found).items() if key != "is_scaling_known"}


def _verdict(folder: Path, summary: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the verdict on a finished run among the runs beside it; None where nothing can be held against it."""
    if summary["status"] != "finished":
        return None
    from dynlora.viz.compare.paired_rows import RunPairs
    from dynlora.viz.verdict.model import verdict
    from dynlora.viz.verdict.text import headline

    folders = {folder.name: folder, **_alike(folder, summary)}
    summaries = {run: one for run, place in folders.items() if (one := _summary(place)) is not None}
    try:
        found = verdict(summaries, RunPairs(folders, summaries, _ask).differences, focus=folder.name)
    except DynloraError:  # of another run
        return None
    contest = None if found is None else found.decisive
    if found is None or contest is None or contest.difference is None:
        return None
    difference = contest.difference
    return {
        "text": headline(found), "n": contest.seeds, "difference": difference.mean, "low": difference.low,
        "high": difference.high, "unit": contest.unit, "outcome": contest.outcome, "configuration": contest.group.label,
        "against": found.baseline.label,
    }  # fmt: skip


def _alike(folder: Path, summary: Mapping[str, Any]) -> dict[str, Path]:
    """Return the newest finished runs beside a run on its model and data, of its length."""
    from dynlora.store import queries
    from dynlora.viz.runs.table import same_task

    found = same_task(queries.list_runs(folder.parent), summary)
    return {run: folder.parent / run for run in found.loc[found["status"] == "finished", "id"].head(MOST_READ)}


def _summary(folder: Path) -> dict[str, Any] | None:
    from dynlora.store import queries

    try:
        return queries.run_summary(folder)
    except DynloraError:
        return None


def _ask(query: Callable[..., Any], folder: Path, *arguments: Any) -> Any:
    """Ask the store; nothing is kept, since a command asks once."""
    return query(folder, *arguments)
