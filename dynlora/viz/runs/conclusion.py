"""What the list of runs shows, in a sentence: how they stand, and which configuration leads on the task most are of."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from dynlora.viz.kit.config_fields import set_values
from dynlora.viz.kit.run_summary import format_strategy, main_metric
from dynlora.viz.kit.stats import LOW_IS_GOOD
from dynlora.viz.kit.status import STATUS_WORDS
from dynlora.viz.kit.text import listed, one_line, plural, score, source_name
from dynlora.viz.runs.table import plain_rows
from dynlora.viz.ui.conclusion import conclusion
from dynlora.viz.ui.run_picker import link

MOST_COMPARED = 50
"""Most runs that the link to Compare holds."""


@dataclass(frozen=True)
class Leader:
    """The configurations with the best mean result on the task of most finished runs.

    Attributes:
        names: of the strategies; several where they tie.
        values: results of the runs of the first of them.
        metric: that decides.
        task: model, data and length, in words.
        configurations: how many there are.
        runs: ids of the finished runs of the task, newest first.
    """

    names: Sequence[str]
    values: Sequence[float]
    metric: str
    task: str
    configurations: int
    runs: Sequence[str]

    @property
    def mean(self) -> float:
        """The mean result of the first."""
        return sum(self.values) / len(self.values)


def runs_conclusion(runs: pd.DataFrame) -> None:
    """Draw the conclusion on the runs that are shown, with the link to their verdict."""
    found = leader(plain_rows(runs[runs["status"] == "finished"]))
    words = standing(runs["status"].tolist())
    if found is None:
        with conclusion(words, "No run has finished with a result yet."):
            pass
        return
    then = "A mean over seeds is no verdict: Compare gives the difference with its interval."
    with conclusion(f"{words} {sentence(found)}", then if found.configurations > 1 else ""):
        if len(found.runs) > 1:
            label = f"Verdict on {plural(min(len(found.runs), MOST_COMPARED), 'run')}"
            link("pages/compare.py", label, runs=",".join(found.runs[:MOST_COMPARED]))


def standing(statuses: Sequence[str]) -> str:
    """Say how many runs there are in each status."""
    counts = Counter(statuses)
    parts = [f"{n} {STATUS_WORDS.get(status, status)}" for status, n in counts.most_common()]
    return f"{plural(len(statuses), 'run')}: {listed(parts, len(parts))}."


def sentence(found: Leader) -> str:
    """Say which configuration leads, with its number of runs and their range."""
    n, metric = len(found.values), one_line(found.metric, 40)
    spread = f"{score(min(found.values))} to {score(max(found.values))}"
    if found.configurations == 1:
        said = f"{found.names[0]} reaches {metric} {score(found.mean)}"
    elif len(found.names) > 1:
        said = f"{listed(found.names)} tie at the best mean {metric}, {score(found.mean)}"
    else:
        said = f"{found.names[0]} has the best mean {metric}, {score(found.mean)}"
    size = f"n = {n}{'' if n == 1 else f', from {spread}'}"
    among = "" if found.configurations == 1 else f" of {found.configurations} configurations"
    return f"On {found.task}, {said} ({size}){among}."


def leader(rows: Sequence[Mapping[str, Any]]) -> Leader | None:
    """Return who leads on the task of most finished runs, of the newest where several have as many; None without.

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
    groups: dict[str, list[tuple[Mapping[str, Any], float]]] = {}
    for row, value in members:
        groups.setdefault(_configuration(row), []).append((row, value))
    sign = -1 if metric in LOW_IS_GOOD else 1
    means = {key: sum(value for _, value in found) / len(found) for key, found in groups.items()}
    best = max(means.values(), key=lambda mean: sign * mean)
    tied = [key for key, mean in means.items() if score(mean) == score(best)]
    first = next(key for key in tied if means[key] == best)
    names = [one_line(format_strategy(groups[key][0][0]), 60) for key in [first, *(k for k in tied if k != first)]]
    task = f"{one_line(source_name(data), 40)} with {one_line(source_name(model), 40)}, {steps:,} steps"
    return Leader(
        names, [value for _, value in groups[first]], metric, task, len(groups), [row["id"] for row, _ in members]
    )


def _configuration(row: Mapping[str, Any]) -> str:
    """Return a text that runs share which differ in nothing but seed, name and log."""
    kept = {
        key: value for key, value in set_values(row.get("config") or {}).items()
        if key not in ("seed", "name") and not key.startswith("log.")
    }  # fmt: skip
    return json.dumps([row.get("strategy"), kept], sort_keys=True, default=str)
