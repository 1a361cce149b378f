"""What runs were set to and what they came to, as numbers side by side: for any two of them, and for many at once.

Rows are plain values as `runlist.plain_rows` returns them, so that hundreds of runs are compared without opening one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from dynlora.analysis.run_summary import format_strategy, parameters_in_use
from dynlora.analysis.seed_groups import LABELS, NOT_COMPARED
from dynlora.config_files import METHOD
from dynlora.store import search
from dynlora.text import number, one_line, source_name
from dynlora.viz.compare.model import distinct_names

Row = Mapping[str, Any]

USED = "params.used"
"""Adapter parameters in use, gates included; counted here, in no row by itself."""

WORDS = {
    "loss": "held-out loss",
    "seed": "seed",
    "step": "steps done",
    USED: "adapter parameters in use",
    "params.budget": "budget (parameters)",
    "params.active": "parameters in use without gates",
    "params.gate": "gate parameters",
    "params.allocated": "allocated parameters",
    "params.head": "head parameters",
    "time.train_s": "training time (s)",
    "time.step_ms_median": "step time (ms)",
    "time.strategy_ms_median": "strategy time per step (ms)",
    "ece": "calibration error (ece)",
    "brier": "Brier score",
    "adapter.rank": "rank",
    "strategy.name": "strategy",
    "model.name": "model",
    "data.name": "data",
    "data.path": "data file",
}
"""What fields are called, with their unit, where their name does not say it."""

NOT_SETTINGS = NOT_COMPARED
"""Settings that are not offered as an axis: but for the seed, none of them changes training or its result."""

LOG_FROM = 8.0
"""Positive numbers that reach over more than this factor are placed by their logarithm."""

TICKS = 12
"""Most values of text on an axis whose names are written."""


def title(field: str) -> str:
    """Return what people call a field."""
    known = WORDS.get(field) or LABELS.get(field)
    if known:
        return known
    if field.startswith("best."):
        return f"best {field[5:]}"
    section, dot, last = field.rpartition(".")
    return one_line(f"{section}: {last.replace('_', ' ')}" if dot else field, 60)


def numbers(row: Row) -> dict[str, float]:
    """Return the finite numbers of a run by field: results, then costs, then settings."""
    values = dict(row.get("metrics") or {})
    values |= {f"best.{name}": value for name, value in (row.get("best") or {}).items()}
    params = row.get("params") or {}
    if (used := parameters_in_use(params)) is not None:
        values[USED] = used
    values |= {
        f"{group}.{name}": value for group in ("params", "time") for name, value in (row.get(group) or {}).items()
    }
    values |= {"step": row.get("step"), "seed": row.get("seed")}
    values |= {key: value for key, value in search.settings(row).items() if key not in NOT_SETTINGS}
    return {str(name): float(value) for name, value in values.items() if _is_number(value)}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300


def number_table(rows: Sequence[Row]) -> pd.DataFrame:
    """Return one row per run: id, name (distinct), strategy, then a column for each number."""
    names = distinct_names(rows)
    about = [
        {"id": row["id"], "name": names[row["id"]], "strategy": one_line(format_strategy(row), 60)} for row in rows
    ]
    whole = pd.DataFrame(about, columns=["id", "name", "strategy"])
    table = pd.DataFrame([numbers(row) for row in rows], index=whole.index)
    order = {name: place for place, name in enumerate(table.columns)}
    return pd.concat([whole, table[sorted(order, key=lambda name: (_kind(name), order[name]))]], axis=1)


def _kind(field: str) -> int:
    """Return where a field is in a list: results, best results, costs, settings."""
    group, dot, _ = field.partition(".")
    if not dot:
        return 3 if field in ("step", "seed") else 0
    return {"best": 1, "params": 2, "time": 2}.get(group, 4)


def varying(table: pd.DataFrame) -> list[str]:
    """Return the numbers of `number_table` that are not the same in all runs."""
    return [name for name in table.columns[3:] if table[name].nunique() > 1]


def swept(rows: Sequence[Row]) -> dict[str, list[Any]]:
    """Return the settings that differ between runs, seed and name aside, each with its value in every run.

    The most varied come first, numbers before text. None is where a run does not set it.
    """
    settings = [search.settings(row) for row in rows]
    keys = [key for key in dict.fromkeys(key for one in settings for key in one) if _is_said(key, settings)]
    columns = {key: [_plain(key, one.get(key)) for one in settings] for key in keys}
    counts = {key: len(set(map(str, values))) for key, values in columns.items()}
    is_text = {key: not any(_is_number(value) for value in columns[key]) for key in columns}
    chosen = sorted((key for key in columns if counts[key] > 1), key=lambda key: (-counts[key], is_text[key]))
    return {key: columns[key] for key in chosen}


def _is_said(key: str, settings: Sequence[Mapping[str, Any]]) -> bool:
    """Say whether a setting can be an axis: what runs of an earlier version lack they were not set apart by.

    A setting of a method is one where it differs among the runs of a method; otherwise the method says it.
    """
    if key in NOT_SETTINGS:
        return False
    if key.startswith("strategy.") and key != METHOD:
        by_method: dict[str, set[str]] = {}
        for one in settings:
            by_method.setdefault(str(one.get(METHOD)), set()).add(str(one.get(key)))
        return any(len(values) > 1 for values in by_method.values())
    given = [one[key] for one in settings if key in one]
    return key == METHOD or len(set(map(str, given))) > 1


def _plain(key: str, value: Any) -> Any:
    """Return a number as it is and everything else as short text, None for nothing."""
    if value is None or _is_number(value):
        return value
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return one_line(", ".join(map(str, value)), 60)
    return one_line(source_name(value) if key in ("data.name", "data.path", "model.name") else value, 60)


def format_value(value: Any) -> str:
    """Return a setting's value as people read it."""
    if value is None:
        return "not set"
    if not _is_number(value):
        return str(value)
    return f"{value:,.0f}" if float(value).is_integer() and abs(value) < 1e15 else f"{value:.6g}"


def in_order(values: Sequence[Any]) -> list[Any]:
    """Return the distinct values of a setting: nothing first, then numbers by size, then text."""
    distinct = {format_value(value): value for value in values}
    return sorted(
        distinct.values(),
        key=lambda value: (0, 0.0, "") if value is None else (1, value, "") if _is_number(value) else (2, 0.0, value),
    )


def is_logarithmic(values: Sequence[Any]) -> bool:
    """Say whether numbers reach so far that they are placed by their logarithm."""
    known = [value for value in values if _is_number(value)]
    return len(known) > 1 and min(known) > 0 and max(known) / min(known) > LOG_FROM


APART = 0.08
"""Least distance of values that are written beside an axis, as a fraction of it."""


@dataclass(frozen=True)
class Axis:
    """One upright axis of the picture of many numbers at once.

    Attributes:
        title: what it shows.
        places: of each run, from 0 at the foot to 1; NaN where the run has no such value.
        words: the value of each run.
        ticks: place and words of the values that are written.
    """

    title: str
    places: tuple[float, ...]
    words: tuple[str, ...]
    ticks: tuple[tuple[float, str], ...]


def axis(name: str, values: Sequence[Any]) -> Axis:
    """Return the axis of a field: numbers by size, or their logarithm when they reach far; text in equal steps.

    Args:
        name: what it shows.
        values: one for each run; None where it has none.
    """
    known = [value for value in values if value is not None]
    if not known or not all(_is_number(value) for value in known):
        return _axis_of_text(name, values)
    scale = math.log if is_logarithmic(known) else float
    low, high = scale(min(known)), scale(max(known))

    def place(value: float) -> float:
        return (scale(value) - low) / (high - low) if high > low else 0.5

    distinct = sorted(set(known))
    written = distinct if len(distinct) <= 5 else [distinct[0], distinct[len(distinct) // 2], distinct[-1]]
    places = tuple(float("nan") if value is None else place(value) for value in values)
    words = tuple("–" if value is None else format_value(value) for value in values)
    return Axis(name, places, words, _apart([(place(value), _tick(value)) for value in written]))


def _tick(value: float) -> str:
    return number(value) if abs(value) >= 100 else f"{value:.4g}"


def _apart(ticks: Sequence[tuple[float, str]]) -> tuple[tuple[float, str], ...]:
    """Return the ticks but those that would be on the one below them; the topmost always stays."""
    apart: list[tuple[float, str]] = []
    for place, words in ticks:
        if apart and place - apart[-1][0] < APART:
            apart.pop()
        apart.append((place, words))
    return tuple(apart)


def _axis_of_text(name: str, values: Sequence[Any]) -> Axis:
    words, order = tuple(format_value(value) for value in values), in_order(values)
    places = {format_value(value): i / (len(order) - 1) if len(order) > 1 else 0.5 for i, value in enumerate(order)}
    step = max(1, math.ceil(len(order) / TICKS))
    ticks = tuple((places[format_value(value)], format_value(value)) for value in order[::step])
    return Axis(name, tuple(places[format_value(value)] for value in values), words, ticks)


def axes(rows: Sequence[Row], settings: Sequence[str], results: Sequence[str]) -> list[Axis]:
    """Return an axis for each chosen setting, then one for each result.

    Args:
        rows: of the runs.
        settings: dotted keys of the configuration.
        results: fields as `number_table` names them.
    """
    columns = swept(rows)
    values_of_rows = [numbers(row) for row in rows]
    left = [axis(title(key), columns[key]) for key in settings if key in columns]
    return left + [axis(title(name), [one.get(name) for one in values_of_rows]) for name in results]


def best_first(rows: Sequence[Row], metric: str, *, low_is_good: bool) -> list[Row]:
    """Return the runs by their result, the best first; those without one come last."""

    def place(row: Row) -> tuple[bool, float]:
        value = numbers(row).get(metric)
        return (value is None, 0.0 if value is None else value if low_is_good else -value)

    return sorted(rows, key=place)


QUARTERS = ("Best quarter", "Second quarter", "Third quarter", "Last quarter", "No result")


def quarters(values: Sequence[float | None], *, low_is_good: bool) -> list[str]:
    """Say of each run to which quarter its result belongs; equal results share the better one."""
    series = pd.Series(list(values), dtype=float)
    place = series.rank(method="min", ascending=low_is_good, pct=True)
    count = int(series.notna().sum())
    share = (place - 1 / max(count, 1)).to_numpy(float)
    return [QUARTERS[4] if np.isnan(one) else QUARTERS[min(3, int(4 * one + 1e-9))] for one in share]


def lines(rows: Sequence[Row], axes: Sequence[Axis], metric: str, *, low_is_good: bool) -> pd.DataFrame:
    """Return the line of each run over the axes: columns name, quarter, then one for each axis, with its values."""
    names = distinct_names(rows)
    values = [numbers(row).get(metric) for row in rows]
    frame = pd.DataFrame({"name": [names[row["id"]] for row in rows]})
    frame["quarter"] = quarters(values, low_is_good=low_is_good)
    for number_of, one in enumerate(axes):
        frame.insert(2 + number_of, one.title, list(one.words), allow_duplicates=True)
    return frame
