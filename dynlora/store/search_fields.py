"""What a search can ask of a run: the fields of its row in the list, what they hold, and which runs fit.

Rows are those of `catalogue.run_rows`, also after a frame has turned missing numbers into its own kind of nothing.
"""

from __future__ import annotations

import difflib
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from numbers import Real
from typing import Any, cast

from dynlora.config import config_keys
from dynlora.errors import SearchError
from dynlora.store.search import And, Comparison, Not, Or, Query, Word, comparisons, parse

Row = Mapping[str, Any]

SUMMARY = (
    "id",
    "name",
    "status",
    "strategy",
    "fidelity",
    "model",
    "data",
    "metric",
    "seed",
    "step",
    "max_steps",
    "note",
    "error",
    "kind",
    "task",
)
"""Fields of the row itself."""

METRICS = (
    "accuracy",
    "macro_f1",
    "f1",
    "matthews",
    "pearson",
    "spearman",
    "mse",
    "loss",
    "ece",
    "brier",
    "perplexity",
    "token_accuracy",
    "exact_match",
)
"""Metrics of every task."""

TABLES = {
    "metrics": METRICS,
    "best": (*METRICS, "step"),
    "params": ("budget", "active", "allocated", "gate", "head"),
    "time": ("train_s", "step_ms_median", "strategy_ms_median"),
}
"""Groups of numbers, and what every run has in them; a field of theirs is `group.name`, a metric its name alone too."""

OPEN = "strategy."
"""Fields that only some methods have, and a run's configuration only where it sets them: no search is refused over one.
"""

SEARCHED = ("name", "id", "strategy", "model", "data", "status", "note")
"""Where a word is looked for, beside the tags."""


def fits(text: str, rows: Iterable[Row]) -> list[bool]:
    """Say of each run whether a search fits it.

    Raises:
        SearchError: when the search cannot be read, or names a field that none of these runs can have.
    """
    matches = list(rows)
    query = parse(text)
    check_names(query, text, matches)
    return [is_fit(query, row) for row in matches]


def found_rows(text: str, rows: Iterable[Row]) -> list[Row]:
    """Return the runs that a search fits.

    Raises:
        SearchError: as `fits` does.
    """
    matches = list(rows)
    return [row for row, is_found in zip(matches, fits(text, matches), strict=True) if is_found]


def check_names(query: Query, text: str, rows: Iterable[Row]) -> None:
    """Refuse the first field that no run can have.

    Raises:
        SearchError: naming the nearest field.
    """
    usual = usual_names()
    odd = [one for one in comparisons(query) if one.name not in usual and not one.name.startswith(OPEN)]
    if not odd:
        return
    names = {*usual, *recorded_names(rows)}
    for one in odd:
        if one.name not in names:
            raise SearchError(
                text, one.column, f"{one.name[:60]!r} is not a field of these runs; {_nearest(one, names)}"
            )


def unset_names(text: str, rows: Iterable[Row]) -> list[str]:
    """Return the settings of a method that a search names and none of these runs sets: perhaps misspelt.

    Args:
        text: a search that can be read.
        rows: of the runs; their configuration is enough.
    """
    names = dict.fromkeys(one.name for one in comparisons(parse(text)) if one.name.startswith(OPEN))
    unset_rows = list(rows) if names else []
    return [name for name in names if all(value_of(row, name) is None for row in unset_rows)]


def usual_names() -> set[str]:
    """Return the fields that can be asked for whatever runs there are."""
    grouped = {f"{group}.{name}" for group, names in TABLES.items() for name in names}
    return {"tag", "tags", *SUMMARY, *TABLES["metrics"], *grouped, *config_keys()}


def recorded_names(rows: Iterable[Row]) -> set[str]:
    """Return the fields that these runs have beside the usual ones."""
    names: set[str] = set()
    for row in rows:
        names |= {str(name) for name in _table(row, "metrics")}
        names |= {f"{group}.{name}" for group in TABLES for name in _table(row, group)}
        names |= set(settings(row))
    return names


def settings(row: Row) -> dict[str, Any]:
    """Return a run's configuration with dotted keys."""
    return _flat(_table(row, "config"), "")


def _flat(values: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        inner = cast(Mapping[str, Any], value) if isinstance(value, Mapping) else None
        flat |= {f"{prefix}{key}": value} if inner is None else _flat(inner, f"{prefix}{key}.")
    return flat


def value_of(row: Row, name: str) -> Any:
    """Return what a field holds, None where the run has none."""
    if name in ("tag", "tags"):
        return row.get("tags") or []
    if name in SUMMARY:
        return row.get(name)
    group, dot, rest = name.partition(".")
    if dot and group in TABLES:
        return _table(row, group).get(rest)
    if not dot:
        return _table(row, "metrics").get(name)
    value: Any = _table(row, "config")
    for part in name.split("."):
        value = cast(Mapping[str, Any], value).get(part) if isinstance(value, Mapping) else None
    return value


def _table(row: Row, name: str) -> Mapping[str, Any]:
    value = row.get(name)
    return cast(Mapping[str, Any], value) if isinstance(value, Mapping) else {}


def is_fit(query: Query, row: Row) -> bool:
    """Say whether a search fits a run; a field that the run lacks never does."""
    match query:
        case Word(text):
            return _occurs(text.casefold(), row)
        case Comparison():
            return _holds(query, value_of(row, query.name))
        case Not(item):
            return not is_fit(item, row)
        case And(items):
            return all(is_fit(item, row) for item in items)
        case Or(items):
            return any(is_fit(item, row) for item in items)


def _occurs(text: str, row: Row) -> bool:
    texts = [*(row.get(name) for name in SEARCHED), *value_of(row, "tag")]
    return any(text in one.casefold() for one in texts if isinstance(one, str))


ORDERS: dict[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def _holds(one: Comparison, value: Any) -> bool:
    """Say whether a comparison holds: number with number, text with text in any case; of a list one item must fit."""
    if isinstance(value, list | tuple):
        items = cast(Sequence[Any], value)
        if one.operator == "!=":
            return not any(_holds(Comparison(one.name, "=", one.value, one.number), item) for item in items)
        return any(_holds(one, item) for item in items)
    if isinstance(value, bool):
        value = "true" if value else "false"
    if isinstance(value, str):
        left, right = value.casefold(), one.value.casefold()
        return right in left if one.operator == "~" else ORDERS[one.operator](left, right)
    if not isinstance(value, Real) or one.number is None or one.operator == "~" or value != value:
        return False
    return ORDERS[one.operator](value, one.number)


def _nearest(one: Comparison, names: set[str]) -> str:
    """Return "did you mean ...?" with the nearest field, or where fields are listed when none is near."""
    lower = {name.lower(): name for name in sorted(names)}
    lowered = one.name.lower()
    ends = [name for name in sorted(names) if name.rpartition(".")[2].lower() == lowered]
    near = ends[:1] or [lower[name] for name in difflib.get_close_matches(lowered, list(lower), n=1)]
    if near:
        return f"did you mean {near[0][:60]}?"
    return "write one such as strategy, accuracy, params.active or train.lr"
