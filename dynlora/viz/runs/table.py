"""The list of runs as the Runs page shows it: filtered, ordered, grouped, and said in words."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from dynlora.analysis.frames import records
from dynlora.analysis.run_summary import (
    STATUS_WORDS,
    budget_share,
    format_strategy,
    main_metric,
    parameters_in_use,
)
from dynlora.store import search
from dynlora.text import listed, one_line, plural, score, source_name
from dynlora.viz.kit.run_colours import run_colour

SORTS = {
    "newest": "Newest first",
    "oldest": "Oldest first",
    "highest": "Highest result first",
    "lowest": "Lowest result first",
    "name": "By name",
    "strategy": "By strategy",
    "status": "By status",
    "budget": "By budget used",
}
"""Orders of the list: key in the address to words."""

GROUPS = {"none": "Not grouped", "strategy": "By strategy", "data": "By model and data", "tag": "By tag"}
"""Groupings of the list: key in the address to words."""

COLUMNS = (
    "name",
    "status",
    "progress",
    "trend",
    "result",
    "metric",
    "strategy",
    "seed",
    "tags",
    "model",
    "data",
    "adapter parameters",
    "of budget",
    "created",
    "note",
    "where",
    "id",
    "colour",
)


def filtered(runs: pd.DataFrame, statuses: Sequence[str] = (), strategies: Sequence[str] = ()) -> pd.DataFrame:
    """Return the runs that fit; an empty filter fits all.

    Args:
        runs: as `queries.list_runs` returns them.
        statuses: statuses of which a run must have one.
        strategies: strategies of which a run must have one.
    """
    fits = pd.Series(True, index=runs.index)
    if statuses:
        fits &= runs["status"].isin(statuses)
    if strategies:
        fits &= runs["strategy"].isin(strategies)
    return runs[fits].reset_index(drop=True)


def searched(runs: pd.DataFrame, text: str) -> pd.DataFrame:
    """Return the runs that a search fits; an empty one fits all.

    Args:
        runs: as `queries.list_runs` returns them.
        text: the search, see docs/SEARCH.md.

    Raises:
        SearchError: when it cannot be read, or names a field that no run has.
    """
    if not text.strip():
        return runs
    return runs[search.fits(text, records(runs))].reset_index(drop=True)


def ordered(table: pd.DataFrame, sort: str) -> pd.DataFrame:
    """Return the table in an order of `SORTS`; what has no value comes last."""
    keys = {
        "newest": ("created", False),
        "oldest": ("created", True),
        "highest": ("result", False),
        "lowest": ("result", True),
        "name": ("name", True),
        "strategy": ("strategy", True),
        "status": ("status", True),
        "budget": ("of budget", False),
    }
    column, up = keys[sort]
    key = {"name": lambda texts: texts.str.casefold()}.get(column)
    return table.sort_values(column, ascending=up, kind="stable", na_position="last", key=key).reset_index(drop=True)


def runs_table(runs: pd.DataFrame) -> pd.DataFrame:
    """Return the table of the Runs page: one row per run, with the columns `COLUMNS`."""
    table = pd.DataFrame([_row(row) for row in records(runs)], columns=list(COLUMNS))
    table["created"] = _times(table["created"])
    return table.astype({"seed": "Int64", "result": float, "of budget": float, "progress": float})


def _row(row: Mapping[str, Any]) -> dict[str, Any]:
    params, done, total = row.get("params") or {}, row.get("step"), row.get("max_steps")
    name, value = main_metric(row)
    known = not pd.isna(done) and not pd.isna(total) and bool(total) and row["status"] != "finished"
    return {
        "name": one_line(row["name"], 120),
        "status": STATUS_WORDS.get(row["status"], row["status"]),
        "progress": 100 * int(row["step"]) / int(row["max_steps"]) if known else None,
        "trend": list(row.get("trend") or []),
        "result": value,
        "metric": one_line(name, 40),
        "tags": [one_line(tag, 40) for tag in row.get("tags") or []],
        "strategy": "" if pd.isna(row["strategy"]) else one_line(format_strategy(row), 120),
        **{key: "" if pd.isna(row[key]) else one_line(source_name(row[key]), 120) for key in ("model", "data")},
        "seed": None if pd.isna(row["seed"]) else row["seed"],
        "adapter parameters": parameters_in_use(params),
        "of budget": budget_share(params),
        "created": row["created"],
        "note": one_line(row.get("note") or "", 300),
        "where": "own" if row.get("is_own", True) else "sample",
        "id": row["id"],
        "colour": run_colour(row),
    }


def _times(seconds: pd.Series) -> pd.Series:
    """Return times of the clock for seconds since the epoch, all at once: one by one they were a third of the page."""
    known = pd.to_numeric(seconds, errors="coerce")
    finite = known.where(np.isfinite(known))
    return pd.to_datetime(finite.clip(0.0, 4e9) // 1, unit="s")


def match_caption(matches: int, of: int) -> str:
    """Return how many runs a filter leaves, in words."""
    runs = "run" if of == 1 else "runs"
    if matches == of:
        return f"{of:,} {runs}."
    return (
        f"{matches:,} of {of:,} {runs} match the filter." if matches else f"None of {of:,} {runs} matches the filter."
    )


def grouped(runs: pd.DataFrame, by: str) -> pd.DataFrame:
    """Return the finished runs with a result, one row per run and group: columns group, metric, value, name, id.

    Runs of other models or data are never of one group: where there are several, a group says which are its own.

    Args:
        runs: as `queries.list_runs` returns them.
        by: a key of `GROUPS` but `none`; by tag a run belongs to each of its tags.
    """
    rows: list[dict[str, Any]] = []
    finished = records(runs[runs["status"] == "finished"])
    places = _data_labels(finished)
    for row in finished:
        metric, value = main_metric(row)
        if metric and value is not None:
            shared = {"metric": metric, "value": float(value), "name": one_line(row["name"], 60), "id": row["id"]}
            place = places[row["model"], row["data"]]
            where = f", {place}" if len(places) > 1 and by != "data" else ""
            groups = {"data": [place], "tag": list(row["tags"]) or ["no tag"]}.get(by, [str(row["strategy"])])
            rows += [{"group": f"{one_line(group, 80)}{where}", **shared} for group in groups]
    return pd.DataFrame(rows, columns=["group", "metric", "value", "name", "id"]).astype({"value": float})


def _data_labels(rows: Sequence[Mapping[str, Any]]) -> dict[tuple[Any, Any], str]:
    """Return a label for each model and data; those of equal short names get their whole names."""
    pairs = list(dict.fromkeys((row["model"], row["data"]) for row in rows))
    short = [" on ".join(one_line(source_name(part or "?"), 40) for part in pair) for pair in pairs]
    whole = [" on ".join(one_line(part or "?", 200) for part in pair) for pair in pairs]
    return {pair: a if short.count(a) == 1 else b for pair, a, b in zip(pairs, short, whole, strict=True)}


def group_summary(members: pd.DataFrame) -> pd.DataFrame:
    """Return one row per group and metric: runs, mean, spread (standard deviation over the runs), lowest, highest."""
    if members.empty:
        return pd.DataFrame(columns=["group", "metric", "runs", "mean", "spread", "lowest", "highest"])
    statistics = members.groupby(["group", "metric"], sort=False)["value"].agg(["size", "mean", "std", "min", "max"])
    statistics = statistics.rename(
        columns={"size": "runs", "std": "spread", "min": "lowest", "max": "highest"}
    ).reset_index()
    return statistics.sort_values(["metric", "mean"], ascending=[True, False], kind="stable").reset_index(drop=True)


def groups_caption(summary: pd.DataFrame, unfinished: int) -> str:
    """Return what a grouping shows, in words.

    Args:
        summary: as `group_summary` returns it.
        unfinished: runs that are not counted.
    """
    left = f" Not included: {plural(unfinished, 'run')} not finished or without a result." if unfinished else ""
    if summary.empty:
        return f"There is no finished run with a result yet.{left}"
    parts = [
        f"{row['group']}: {one_line(row['metric'], 40)} {score(row['mean'])}"
        f"{_format_spread(row['spread'], row['runs'])}"
        for row in records(summary)
    ]
    return f"Mean ± standard deviation over runs; whiskers cover all runs. {listed(parts, 4)}.{left}"


def _format_spread(spread: float, runs: int) -> str:
    return " (1 run)" if runs == 1 else f" ± {score(spread)} ({runs} runs)"


def plain_rows(runs: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the rows of runs as plain values, None where a frame holds its own kind of nothing."""
    return [{key: _plain(value) for key, value in row.items()} for row in records(runs)]


def export_rows(runs: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the rows of runs as plain values for a file, without what only the page needs."""
    dropped = {"folder", "reason", "stalled_s", "heartbeat_age_s", "other_host", "is_own"}
    return [{key: value for key, value in row.items() if key not in dropped} for row in plain_rows(runs)]


def export_json(runs: pd.DataFrame) -> str:
    """Return the rows of runs as a JSON list."""
    return json.dumps(export_rows(runs), ensure_ascii=False, indent=2) + "\n"


def export_frame(runs: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of runs as a flat table: metrics and the like one column each, lists in one cell."""
    flat = pd.json_normalize(export_rows(runs))
    return flat.map(lambda value: "; ".join(map(str, value)) if isinstance(value, list) else value)


def export_command(run_id: str, runs_dir: str) -> str:
    """Return the command that writes a run's adapter for PEFT."""
    return shlex.join(["dynlora", "export", run_id, "--out", f"adapter-{run_id}", "--runs-dir", runs_dir])


def _plain(value: Any) -> Any:
    if isinstance(value, list | dict):
        return value
    if pd.isna(value):
        return None
    return value.item() if isinstance(value, np.generic) else value


def all_tags(runs: pd.DataFrame) -> list[str]:
    """Return the tags of all runs, the most used first."""
    return pd.Series([tag for tags in runs["tags"] for tag in tags], dtype=object).value_counts().index.tolist()
