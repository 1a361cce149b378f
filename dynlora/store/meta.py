"""What a run says of itself, brought to the kinds it has to be of: whoever shows it need not look at each value again.

A value of another kind counts as one that was never written.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any, cast

from dynlora.config import RunConfig
from dynlora.renamed_settings import with_current_names, with_earlier_defaults
from dynlora.store.jsontext import MAX_WHOLE

SECTIONS = ("model", "data", "adapter", "strategy", "train", "log")
"""Keys of a configuration that hold keys of their own."""

MAX_DRAWN = 1e300
"""Larger numbers are no measurement, and axes cannot hold them."""


def table(value: Any) -> dict[str, Any]:
    """Return a JSON object, empty when the value is none."""
    return cast(dict[str, Any], value) if isinstance(value, dict) else {}


def is_number(value: Any) -> bool:
    """Say whether a JSON value is a number."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def numbers(value: Any) -> dict[str, float | None]:
    """Return the numeric entries of a JSON object, null for NaN; empty when it is no object."""
    return {key: item for key, item in table(value).items() if item is None or is_number(item)}


def counts(value: Any) -> dict[str, int]:
    """Return the entries of a JSON object that count something; empty when it is no object."""
    return {key: item for key, item in table(value).items() if is_count(item)}


def is_count(value: Any) -> bool:
    """Say whether a value is a whole number from zero on that every reader can hold."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_WHOLE


def count(value: Any) -> int:
    """Return a whole number from zero on, zero for anything else."""
    return value if is_count(value) else 0


def items(value: Any, limit: int) -> list[Any]:
    """Return the first items of a JSON list, none for anything else."""
    return cast(list[Any], value)[:limit] if isinstance(value, list) else []


def short_text(value: Any, limit: int) -> str:
    """Return the beginning of a text, or of a number as one; empty for anything else."""
    return (text(value) or "")[:limit]


def finite(value: Any) -> float | None:
    """Return a finite number that can be drawn, None for anything else."""
    return float(value) if is_number(value) and abs(value) < MAX_DRAWN else None


def whole(value: Any) -> int | None:
    """Return a whole number, None for anything else."""
    return value if isinstance(value, int) and not isinstance(value, bool) and abs(value) <= MAX_WHOLE else None


def moment(value: Any) -> float | None:
    """Return a time in seconds since the epoch, None for what is none."""
    fits = is_number(value) and 0 <= value <= MAX_WHOLE
    return float(value) if fits and math.isfinite(value) else None


def text(value: Any) -> str | None:
    """Return a text; a number as one; None for anything else."""
    return value if isinstance(value, str) else str(value) if is_number(value) else None


def texts(value: Any) -> list[str]:
    """Return the texts of a JSON list, none for anything else."""
    return [item for item in items(value, MAX_WHOLE) if isinstance(item, str)]


def planned(value: Any) -> int | None:
    """Return how many reallocations a schedule plans; runs of earlier versions list their steps."""
    return len(items(value, MAX_WHOLE)) if isinstance(value, list) else whole(value)


def config(value: Any) -> dict[str, Any]:
    """Return the configuration of a run, every section an object.

    The method's settings have their current names, and the defaults that the run was made with.
    """
    sections = {key: table(item) if key in SECTIONS else item for key, item in table(value).items()}
    if "strategy" in sections:
        sections["strategy"] = with_earlier_defaults(with_current_names(sections["strategy"]))
    return sections


def section(config: Any, name: str) -> Mapping[str, Any]:
    """Return a section of a configuration that nobody checked, empty when it has none."""
    return table(table(config).get(name))


def meta_of(config: RunConfig, fidelity: str | None, own_signals: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is kept of a run before its data is read; the rest is added when it is.

    Args:
        config: of the run.
        fidelity: of its method.
        own_signals: what its method records, as plain values by name.
    """
    return {
        "name": config.title,
        "strategy": config.strategy.name,
        "fidelity": fidelity,
        "own_signals": dict(own_signals),
        "model": config.model.name,
        "data": config.data.source,
        "seed": config.seed,
        "config": config.stored(),
    }


TRAIN, OTHER = "train", "other"

FROM_EVENTS = "continues_from_events"
"""Meta key of a run that continues from its own events, and keeps no checkpoint."""

DECODE = "decode"
"""Runs of this kind that were made before they said `FROM_EVENTS` themselves."""

NAME = re.compile(r"[a-z][a-z0-9_]{0,30}")


def kind_of(meta: Mapping[str, Any]) -> str:
    """Return the kind of a run from its meta key `kind`; a run without one is a training, one that is odd is other."""
    name = meta.get("kind")
    if name is None:
        return TRAIN
    return name if isinstance(name, str) and NAME.fullmatch(name) else OTHER


def continues_from_events(meta: Mapping[str, Any]) -> bool:
    """Say whether a run needs no checkpoint to continue.

    Args:
        meta: of the run, at least `kind` and `FROM_EVENTS`.
    """
    return meta.get(FROM_EVENTS) is True or kind_of(meta) == DECODE


MAX_POINTS = 256

WITHIN = 0.01
"""How much lower than the target's an accuracy may be and still count as the target's."""


def result_of(document: Mapping[str, Any]) -> float | None:
    """Return the accuracy that a decode stands for in a list of runs; None where nothing is known of it.

    That of the cheapest threshold as accurate as the target alone, else of the most accurate one. The control, which
    keeps steps by chance, never counts.

    Args:
        document: the results of a decode, as they were written.
    """
    points = [row for row in map(table, items(document.get("points"), MAX_POINTS)) if row.get("accept") != "constant"]
    known = [row for row in points if finite(row.get("accuracy")) is not None]
    good = [(_against(row, "flops", "ratio"), row) for row in known]
    cheap = [
        (ratio, place, row)
        for place, (ratio, row) in enumerate(good)
        if ratio is not None and (_against(row, "accuracy", "difference") or 0.0) >= -WITHIN - 1e-9
    ]
    if cheap:
        return finite(min(cheap)[2]["accuracy"])
    return max((float(row["accuracy"]) for row in known), default=None)


def metrics_of(meta: Mapping[str, Any]) -> dict[str, float]:
    """Return the metrics of a decode as those of a training are kept: each point is a measurement of its own.

    Args:
        meta: of its store; `decode_results` is what counts.
    """
    result = result_of(table(meta.get("decode_results")))
    return {} if result is None else {"accuracy": result}


def _against(row: Mapping[str, Any], what: str, number: str) -> float | None:
    """Return one number of a point against the target alone."""
    return finite(table(table(row.get("against_target")).get(what)).get(number))
