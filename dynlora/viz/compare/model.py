"""What the Compare page computes before it draws: series side by side, differences of configurations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from dynlora.analysis import run_summary
from dynlora.analysis.frames import smoothed
from dynlora.analysis.planted_ranks import placements
from dynlora.analysis.retention import Retention
from dynlora.analysis.run_summary import LOW_IS_GOOD, format_strategy, main_metric, parameters_in_use
from dynlora.analysis.seed_groups import SOURCES, Group, every_value, flat
from dynlora.analysis.stats import spearman
from dynlora.store.summary import RunSummary
from dynlora.text import listed, metric_words, number, one_line, source_name


def distinct_names(rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Return a display name for each run id; equal names get the end of the id."""
    names = [one_line(row["name"], 60) for row in rows]
    return {
        row["id"]: name if names.count(name) == 1 else f"{name} ({row['id'][-4:]})"
        for row, name in zip(rows, names, strict=True)
    }


def together(frames: Mapping[str, pd.DataFrame], *, smoothing: str = "none") -> pd.DataFrame:
    """Return series of several runs as one frame with a column `run`, smoothed as `frames.SMOOTHING` names it."""
    parts = [
        frame.assign(run=run, value=smoothed(frame["value"], smoothing)) for run, frame in frames.items() if len(frame)
    ]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=["run", "step", "value"])


def shared_metric(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the metric that decides in the first run that has one, `accuracy` when none has."""
    return next((name for name, _ in map(main_metric, rows) if name), "accuracy")


def config_difference(summaries: Sequence[RunSummary], names: Mapping[str, str]) -> pd.DataFrame:
    """Return the settings that are not the same in all runs: column `setting`, then one per run."""
    configs = {names[summary.id]: every_value(summary.config) for summary in summaries}
    keys = list(dict.fromkeys(key for summary in summaries for key in flat(summary.config)))
    rows = [[key, *(_shown(config, key) for config in configs.values())] for key in keys if key != "name"]
    differ = [_by_name(row) for row in rows if len(set(row[1:])) > 1]
    return pd.DataFrame(differ, columns=["setting", *configs])


def _shown(config: Mapping[str, Any], key: str) -> str:
    if key not in config:
        return "–"
    return "automatic" if config[key] is None else one_line(config[key], 2000)


def _by_name(row: list[str]) -> list[str]:
    """Return a row of settings for a table: model and data by name, as everywhere on the pages."""
    key, *values = row
    is_source = key.partition(".")[0] in SOURCES
    return [key, *(one_line(source_name(value) if is_source else value, 120) for value in values)]


def final_table(summaries: Sequence[RunSummary], names: Mapping[str, str], metric: str) -> pd.DataFrame:
    """Return one row per run: how it ended, at what cost."""
    rows = []
    for summary in summaries:
        rows.append(
            {
                "name": names[summary.id],
                "method": format_strategy(dict(summary)),
                "status": summary.status,
                "seed": summary.seed,
                "steps": summary.step,
                metric: summary.metrics.get(metric),
                f"best {metric}": summary.best.get(metric),
                "held-out loss": summary.metrics.get("loss"),
                "adapter parameters in use": parameters_in_use(summary.params),
                "budget": summary.params.get("budget"),
                "step time (ms)": summary.time.get("step_ms_median"),
                "strategy time (ms)": summary.time.get("strategy_ms_median"),
            }
        )
    return pd.DataFrame(rows).round(
        {metric: 4, f"best {metric}": 4, "held-out loss": 4, "step time (ms)": 1, "strategy time (ms)": 2}
    )


def sample_words(summaries: Sequence[RunSummary]) -> str:
    """Say on how many held-out examples the runs are evaluated before their end; empty where each takes all."""
    samples = {run_summary.interim_rows(summary) for summary in summaries} - {None}
    if len(samples) == 1:
        return run_summary.sample_words(next(summary for summary in summaries if run_summary.interim_rows(summary)))
    return (
        "Evaluations before the last take fixed samples of the held-out examples, of different sizes."
        if samples
        else ""
    )


def warnings(summaries: Sequence[RunSummary]) -> list[str]:
    """Return what makes a comparison unfair beside settings: other budgets, and metrics of a sample."""
    sentences = []
    given = (summary.params.get("budget") for summary in summaries)
    budgets = {budget for budget in given if budget is not None}
    if len(budgets) > 1:
        sentences.append(
            f"These runs have different budgets: {', '.join(number(b) for b in sorted(budgets))} parameters."
        )
    sampled = [one_line(summary.name, 40) for summary in summaries if run_summary.is_sampled(summary)]
    if sampled:
        sentences.append(
            f"The metrics of {listed(sampled, 4)} come from a sample of the held-out examples. The last evaluation, "
            "which takes all, has not run."
        )
    return sentences


def rank_table(
    summaries: Sequence[RunSummary], modules: Mapping[str, pd.DataFrame], names: Mapping[str, str]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return (last ranks: a row per module name, a column per run; the modules in the order of the rows)."""
    known = [summary for summary in summaries if summary.ranks]
    table = pd.DataFrame({names[summary.id]: pd.Series(summary.ranks, dtype=float) for summary in known})
    described = [modules[summary.id] for summary in known]
    if not described:
        return table, pd.DataFrame(columns=["name", "label", "short"])
    rows = pd.concat(described, ignore_index=True).drop_duplicates("name")
    rows = rows[rows["name"].isin(table.index)]
    order = {label: i for i, label in enumerate(dict.fromkeys(rows["label"]))}
    rows = rows.sort_values("label", key=lambda labels: labels.map(order), kind="stable").reset_index(drop=True)
    return table.reindex(rows["name"]), rows


def named_rows(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table with its row names as the column `module`."""
    rows = table.reset_index(drop=True)
    rows.insert(0, "module", [str(name) for name in table.index], allow_duplicates=True)
    return rows


def by_group(summaries: Mapping[str, RunSummary], groups: Sequence[Group], metric: str) -> pd.DataFrame:
    """Return one row per group: how many runs, the last metric of its runs, and what they use.

    Columns: group, n (runs with a metric), mean, low, high, active (mean adapter parameters in use, gates included),
    placed (components where they are needed, as 7 of 33; empty where that is not known), pareto (no other group is as
    good with as few parameters, one of both better).
    """
    rows = []
    for group in groups:
        members = [summaries[run] for run in group.runs]
        values = [value for one in members if (value := one.metrics.get(metric)) is not None]
        used = [parameters_in_use(one.params) for one in members]
        known = [value for value in used if value is not None]
        rows.append(
            (
                group.title,
                len(values),
                *(f(values) if values else float("nan") for f in (_mean, min, max)),
                _mean(known) if known else float("nan"),
            )
        )
    table = pd.DataFrame(rows, columns=["group", "n", "mean", "low", "high", "active"])
    counts = placements({group.title: [summaries[run] for run in group.runs] for group in groups})
    table["placed"] = [counts.get(group.title, "") for group in groups]
    table["pareto"] = pareto(table["active"], table["mean"], low_is_good=metric in LOW_IS_GOOD)
    return table


def by_retention(
    points: pd.DataFrame, groups: Sequence[Group], last: Mapping[str, Retention], metric: str
) -> pd.DataFrame:
    """Return the rows of `by_group` whose runs measured what they forgot, with its mean over them.

    The column forgotten is in the unit of the first run; runs that count it in another are left out. pareto: no other
    group is as good and forgets as little, one of both better.

    Args:
        points: as `by_group` returns them.
        groups: of the runs.
        last: what each run forgot in the end, by id; without those that did not measure it.
        metric: of the points.
    """
    unit = next(iter(last.values())).unit if last else ""
    known = {run: one.forgotten for run, one in last.items() if one.unit == unit}
    means = {
        group.title: _mean([known[run] for run in group.runs if run in known])
        for group in groups
        if any(run in known for run in group.runs)
    }
    table = points[points["group"].isin(list(means))].dropna(subset=["mean"]).drop(columns="pareto")
    table = table.assign(forgotten=[means[title] for title in table["group"]], unit=unit)
    best = pareto(table["forgotten"], table["mean"], low_is_good=metric in LOW_IS_GOOD)
    return table.assign(pareto=best)


def _mean(values: Sequence[float]) -> float:
    return float(sum(values) / len(values))


def best_first(summaries: Mapping[str, RunSummary], groups: Sequence[Group], metric: str) -> list[Group]:
    """Return the groups by their mean last metric, the best first; those without one last, in the order given."""
    means = by_group(summaries, groups, metric)["mean"]
    order = means.sort_values(ascending=metric in LOW_IS_GOOD, kind="stable", na_position="last").index
    return [groups[int(place)] for place in order]


def group_table(table: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Return the groups of `by_group` as people read them."""
    columns = {
        "group": "configuration",
        "n": "runs",
        "mean": f"mean {metric_words(metric)}",
        "low": "lowest",
        "high": "highest",
        "placed": "components where needed",
        "active": "adapter parameters in use",
    }
    if not table["placed"].any():
        del columns["placed"]
    renamed = table[list(columns)].rename(columns=columns)
    results = [columns["mean"], "lowest", "highest"]
    renamed[results] = renamed[results].round(4)
    renamed["adapter parameters in use"] = renamed["adapter parameters in use"].round().astype("Int64")
    return renamed


def pareto(cost: pd.Series, value: pd.Series, *, low_is_good: bool = False) -> list[bool]:
    """Say of each point whether no other has at most its cost and at least its value, one of both better."""
    points = [(float(c), float(-v if low_is_good else v)) for c, v in zip(cost, value, strict=True)]
    return [
        bool(pd.notna(c) and pd.notna(v)) and not any(c2 <= c and v2 >= v and (c2 < c or v2 > v) for c2, v2 in points)
        for c, v in points
    ]


def group_ranks(
    table: pd.DataFrame, names: Mapping[str, str], groups: Sequence[Group], *, spread: bool = False
) -> pd.DataFrame:
    """Return the mean last rank of each module in each group, or its standard deviation over the group's runs.

    Args:
        table: one row per module name, one column per run (its display name).
        names: display name of each run id.
        groups: of the runs.
        spread: the deviation (n - 1) in place of the mean; groups of one are left out.
    """
    ranks = {}
    for group in groups:
        columns = [names[run] for run in group.runs if names[run] in table]
        if len(columns) > spread:
            ranks[group.title] = table[columns].std(axis=1, ddof=1) if spread else table[columns].mean(axis=1)
    return pd.DataFrame(ranks, index=table.index)


def reproducibility(table: pd.DataFrame, names: Mapping[str, str], groups: Sequence[Group]) -> pd.DataFrame:
    """Return how alike the last ranks of a group's runs are: columns group, n, spearman, deviation.

    spearman is the mean rank correlation over all pairs of runs, NaN when no run has unequal ranks; deviation is the
    mean over the modules of the standard deviation over runs, in components. Groups of one run are left out.
    """
    rows = []
    for group in groups:
        columns = [names[run] for run in group.runs if names[run] in table]
        if len(columns) > 1:
            pairs = [spearman(table[a], table[b]) for a, b in combinations(columns, 2)]
            known = [pair for pair in pairs if pd.notna(pair)]
            deviation = float(np.nanmean(np.std(table[columns].to_numpy(float), axis=1, ddof=1)))
            rows.append((group.title, len(columns), _mean(known) if known else float("nan"), deviation))
    return pd.DataFrame(rows, columns=["group", "n", "spearman", "deviation"])
