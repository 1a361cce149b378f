"""What kind of run a folder holds, as the store names it: all kinds have one format, one reader and one queue.

`dynlora/kinds/` holds the kinds themselves.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from dynlora.store.meta import finite, items, table

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
    asked = [row for row in map(table, items(document.get("points"), MAX_POINTS)) if row.get("accept") != "constant"]
    known = [row for row in asked if finite(row.get("accuracy")) is not None]
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
