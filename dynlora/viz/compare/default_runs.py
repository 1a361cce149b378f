"""What Compare shows when its address says nothing: the newest run whose rank moved, beside what is most like it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from dynlora.analysis import run_summary, seed_groups
from dynlora.analysis.pairing import same_task
from dynlora.errors import DynloraError
from dynlora.store import queries
from dynlora.viz.runs import table as runs_table
from dynlora.viz.ui import cached_queries
from dynlora.viz.ui.run_picker import MOST_TRIED, find_run

MOST_LIKE = 11
"""Most runs of the same task that are added to one that is alone."""

MOST_LOOKED_AT = 500
"""Most runs of the same task, the newest, that are looked through: with thousands of them the page would wait."""

SHOWN = ("finished", "running", "stopping")
"""Statuses of a run that a comparison can begin with: it has something to show."""

Row = Mapping[str, Any]


def default_runs(runs: pd.DataFrame) -> list[str]:
    """Return the ids of the runs to compare, the newest first; own ones where there is something to compare them with.

    First choice is the newest run, training or finished, that is no plain LoRA, beside plain LoRA on the same data, of
    the same length and with the same other settings; then the newest finished run beside another method on its task.
    Without either among one's own runs, the samples are looked through in the same way, the task with most runs first;
    last come the newest two.

    Args:
        runs: as `run_picker.list_all` returns them, those that can be read.
    """
    own, plain = runs[runs["is_own"]], _Plain()
    found = next(_beside_plain(own, runs, plain), None) or _beside_another(own, runs)
    if found:
        return found
    samples = list(_beside_plain(runs, runs, plain))  # of several tasks: the one with most to see
    return max(samples, key=len) if samples else _beside_another(runs, runs) or runs["id"].head(2).tolist()


def left_alone(runs: pd.DataFrame, chosen: Sequence[str]) -> Row | None:
    """Return the newest own run that has something to show, where none of one's own is among the chosen runs."""
    own = runs[runs["is_own"] & runs["status"].isin(SHOWN)]
    if own.empty or own["id"].isin(chosen).any():
        return None
    return runs_table.plain_rows(own.head(1))[0]


def _beside_plain(among: pd.DataFrame, runs: pd.DataFrame, plain: _Plain) -> Iterator[list[str]]:
    """Yield, task by task, the newest run that is not plain LoRA with the runs like it, plain LoRA among them."""
    done, seen = runs[runs["status"] == "finished"], set[tuple[Any, ...]]()
    for run in runs_table.plain_rows(among[among["status"].isin(SHOWN)].head(MOST_TRIED)):
        task = (run["model"], run["data"], run["max_steps"])
        if task in seen or plain(run) is not False:
            continue
        alike = _like(done, run)
        baselines = [other for other in alike if plain(other)]
        if baselines:
            seen.add(task)
            yield [run["id"], *_most_in_common(run, alike, seed_groups.configuration(baselines[0]))]


def _beside_another(among: pd.DataFrame, runs: pd.DataFrame) -> list[str]:
    """Return the newest finished run with those of its task, where one of them has another method."""
    done = runs[runs["status"] == "finished"]
    for run in runs_table.plain_rows(among[among["status"] == "finished"].head(MOST_TRIED)):
        alike = same_task(done, run)
        if (alike["strategy"] != run["strategy"]).any():
            return [run["id"], *alike["id"].head(MOST_LIKE)]
    return []


def _like(runs: pd.DataFrame, run: Row) -> list[Row]:
    """Return the newest runs on a run's task that differ from it in method and seed alone."""
    alike = runs_table.plain_rows(same_task(runs, run).head(MOST_LOOKED_AT))
    return [other for other in alike if not seed_groups.other_differences(run, other)]


def _most_in_common(run: Row, alike: Sequence[Row], baseline: str) -> list[str]:
    """Return the ids of the runs of the same configuration, of the baseline, and of those with as many common seeds.

    A method with fewer common seeds would make the comparison wider and no surer.
    """
    seeds: dict[str, set[Any]] = {}
    for other in (run, *alike):
        seeds.setdefault(seed_groups.configuration(other), set()).add(other["seed"])
    own = seeds[seed_groups.configuration(run)]
    common = {name: len(own & theirs) for name, theirs in seeds.items()}
    first = {baseline, seed_groups.configuration(run)}
    kept = first | {name for name in common if common[name] >= common[baseline]}
    found = [other for other in alike if seed_groups.configuration(other) in kept]
    found.sort(key=lambda other: seed_groups.configuration(other) not in first)  # the two sides are whole
    return [other["id"] for other in found][:MOST_LIKE]


class _Plain:
    """Says whether a run is plain LoRA; None where it cannot be read or has no ranks yet. Each method is read once."""

    def __init__(self) -> None:
        self._known: dict[str, bool] = {}

    def __call__(self, run: Row) -> bool | None:
        method = json.dumps((run.get("config") or {}).get("strategy"), sort_keys=True, default=str)
        if method not in self._known:
            try:
                summary = cached_queries.ask(queries.run_summary, find_run(run["id"]).folder)
            except DynloraError:
                return None
            if not summary["ranks"]:
                return None
            self._known[method] = run_summary.is_uniform(summary)
        return self._known[method]
