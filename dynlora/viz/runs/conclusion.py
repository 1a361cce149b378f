"""What the list of runs shows, in a sentence: their states, and what was reached on the task most are of."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from dynlora.analysis.config_fields import set_values
from dynlora.analysis.run_summary import STATUS_WORDS, format_strategy, main_metric
from dynlora.text import listed, one_line, plural, score, source_name
from dynlora.viz.runs.table import plain_rows
from dynlora.viz.ui.panel_cards import conclusion
from dynlora.viz.ui.run_picker import link

MOST_COMPARED = 50
"""Most runs that the link to Compare holds."""


@dataclass(frozen=True)
class TaskResults:
    """What the finished runs of one task reached; which configuration to use is the verdict's to say.

    Attributes:
        name: of the strategy, where there is one configuration.
        means: mean result of each configuration.
        metric: that decides.
        task: model, data and length, in words.
        runs: ids of the finished runs of the task, newest first.
    """

    name: str
    means: Sequence[float]
    metric: str
    task: str
    runs: Sequence[str]


def runs_conclusion(runs: pd.DataFrame) -> None:
    """Draw the conclusion on the runs that are shown, with the link to their verdict."""
    finished = runs[runs["status"] == "finished"]
    own = finished[finished["is_own"]]
    found = task_results(plain_rows(own if len(own) else finished))
    words = standing(runs["status"].tolist())
    if found is None:
        with conclusion(words, "No run has finished with a result yet."):
            pass
        return
    then = "Compare says which to use: the verdict has the difference with its interval."
    with conclusion(f"{words} {sentence(found)}", then if len(found.means) > 1 else ""):
        if len(found.runs) > 1:
            label = f"Verdict on {plural(min(len(found.runs), MOST_COMPARED), 'run')}"
            link("pages/compare.py", label, runs=",".join(found.runs[:MOST_COMPARED]))


def standing(statuses: Sequence[str]) -> str:
    """Say how many runs there are in each status."""
    counts = Counter(statuses)
    parts = [f"{n} {STATUS_WORDS.get(status, status)}" for status, n in counts.most_common()]
    return f"{plural(len(statuses), 'run')}: {listed(parts, len(parts))}."


def sentence(found: TaskResults) -> str:
    """Say what the configurations reached, with the number of runs."""
    n, metric = len(found.runs), one_line(found.metric, 40)
    low, high = score(min(found.means)), score(max(found.means))
    if len(found.means) == 1:
        return f"On {found.task}, {found.name} reaches {metric} {low} (n = {n})."
    reach = f"all have mean {metric} {low}" if low == high else f"have mean {metric} from {low} to {high}"
    return f"On {found.task}, {len(found.means)} configurations {reach} ({plural(n, 'run')})."


def task_results(rows: Sequence[Mapping[str, Any]]) -> TaskResults | None:
    """Return the results on the task of most finished runs, of the newest where several have as many; None without.

    Args:
        rows: finished runs of the list as plain values, newest first.
    """
    tasks: dict[tuple[Any, ...], list[tuple[Mapping[str, Any], float]]] = {}
    for row in rows:
        metric, value = main_metric(row)
        if metric and value is not None:
            tasks.setdefault((row["model"], row["data"], row["max_steps"], metric), []).append((row, float(value)))
    if not tasks:
        return None
    (model, data, steps, metric), members = max(tasks.items(), key=lambda item: len(item[1]))
    groups: dict[str, list[float]] = {}
    for row, value in members:
        groups.setdefault(_configuration(row), []).append(value)
    means = [sum(values) / len(values) for values in groups.values()]
    task = f"{one_line(source_name(data), 40)} with {one_line(source_name(model), 40)}, {steps:,} steps"
    name = one_line(format_strategy(members[0][0]), 60)
    return TaskResults(name, means, metric, task, [row["id"] for row, _ in members])


def _configuration(row: Mapping[str, Any]) -> str:
    """Return a text that runs share which differ in nothing but seed, name and log."""
    kept = {
        key: value
        for key, value in set_values(row.get("config") or {}).items()
        if key not in ("seed", "name") and not key.startswith("log.")
    }
    return json.dumps([row.get("strategy"), kept], sort_keys=True, default=str)
