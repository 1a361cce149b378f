"""What the Compare page computes before it draws: series side by side, differences of configurations."""

# pyright: reportArgumentType=false, reportCallIssue=false
# (pandas comes without types: a column is taken for a frame and a frame for a column)
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from dynlora.viz.figures import smoothed
from dynlora.viz.labels import number, one_line
from dynlora.viz.launchform import flat
from dynlora.viz.listing import main_metric, strategy_words


def distinct_names(summaries: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Return a display name for each run id; equal names get the end of the id."""
    names = [one_line(summary["name"], 60) for summary in summaries]
    return {
        summary["id"]: name if names.count(name) == 1 else f"{name} ({summary['id'][-4:]})"
        for summary, name in zip(summaries, names, strict=True)
    }


def together(frames: Mapping[str, pd.DataFrame], *, smooth: bool = False) -> pd.DataFrame:
    """Return series of several runs as one frame with a column `run`, smoothed when asked for."""
    parts = [frame.assign(run=run) for run, frame in frames.items() if len(frame)]
    if smooth:
        parts = [part.assign(value=smoothed(part["value"])) for part in parts]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=["run", "step", "value"])


def shared_metric(summaries: Sequence[Mapping[str, Any]]) -> str:
    """Return the metric that decides in the first run that has one, `accuracy` when none has."""
    return next((name for name, _ in map(main_metric, summaries) if name), "accuracy")


def config_difference(summaries: Sequence[Mapping[str, Any]], names: Mapping[str, str]) -> pd.DataFrame:
    """Return the settings that are not the same in all runs: column `setting`, then one per run."""
    configs = {names[summary["id"]]: flat(summary.get("config") or {}) for summary in summaries}
    keys = list(dict.fromkeys(key for config in configs.values() for key in config))
    rows = [[key, *(_shown(config, key) for config in configs.values())] for key in keys if key != "name"]
    return pd.DataFrame([row for row in rows if len(set(row[1:])) > 1], columns=["setting", *configs])


def _shown(config: Mapping[str, Any], key: str) -> str:
    if key not in config:
        return "–"
    return "automatic" if config[key] is None else one_line(config[key], 120)


def final_table(summaries: Sequence[Mapping[str, Any]], names: Mapping[str, str], metric: str) -> pd.DataFrame:
    """Return one row per run: how it ended, at what cost."""
    rows = []
    for summary in summaries:
        params, time, best = (summary.get(key) or {} for key in ("params", "time", "best"))
        rows.append(
            {
                "name": names[summary["id"]], "method (fidelity)": strategy_words(summary), "status": summary["status"],
                "seed": summary.get("seed"), "steps": summary["step"], metric: summary["metrics"].get(metric),
                f"best {metric}": best.get(metric), "held-out loss": summary["metrics"].get("loss"),
                "active parameters": params.get("active"), "budget": params.get("budget"),
                "step, ms": time.get("step_ms_median"), "strategy, ms": time.get("strategy_ms_median"),
            }
        )  # fmt: skip
    return pd.DataFrame(rows).round(
        {metric: 4, f"best {metric}": 4, "held-out loss": 4, "step, ms": 1, "strategy, ms": 2}
    )


def warnings(summaries: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return what makes a comparison unfair: other models, data, steps or budgets."""
    found = []
    for key, words in (("model", "models"), ("data", "data sets"), ("max_steps", "numbers of steps")):
        values = {str(summary.get(key)) for summary in summaries}
        if len(values) > 1:
            found.append(f"These runs have different {words}: {', '.join(sorted(one_line(v, 40) for v in values))}.")
    budgets = {(summary.get("params") or {}).get("budget") for summary in summaries} - {None}
    if len(budgets) > 1:
        found.append(f"These runs have different budgets: {', '.join(number(b) for b in sorted(budgets))} parameters.")
    return found


def last_values(final: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Return columns name and value of a final table."""
    return pd.DataFrame({"name": final["name"], "value": pd.to_numeric(final[metric], errors="coerce")})


def rank_table(
    summaries: Sequence[Mapping[str, Any]], modules: Mapping[str, pd.DataFrame], names: Mapping[str, str]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return (last ranks: a row per module name, a column per run; the modules in the order of the rows)."""
    known = [summary for summary in summaries if summary["ranks"]]
    table = pd.DataFrame({names[summary["id"]]: pd.Series(summary["ranks"], dtype=float) for summary in known})
    described = [modules[summary["id"]] for summary in known]
    if not described:
        return table, pd.DataFrame(columns=["name", "label", "short"])
    rows = pd.concat(described, ignore_index=True).drop_duplicates("name")
    rows = rows[rows["name"].isin(table.index)]
    order = {label: i for i, label in enumerate(dict.fromkeys(rows["label"]))}
    rows = rows.sort_values("label", key=lambda labels: labels.map(order), kind="stable").reset_index(drop=True)
    return table.reindex(rows["name"]), rows


def named_rows(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table with its row names as the column `module`."""
    found = table.reset_index(drop=True)
    found.insert(0, "module", [str(name) for name in table.index], allow_duplicates=True)
    return found
