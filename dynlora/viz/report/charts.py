"""Figures as the plain values that a report carries: drawn once in light, and what differs in dark."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import plotly.graph_objects as go

from dynlora.viz.kit.theme import DARK, LIGHT
from dynlora.viz.report.document import Chart


def chart_data(charts: Iterable[Chart]) -> list[dict[str, Any]]:
    """Return each chart as `figure`, drawn for light, and `dark`, the places and values that differ for dark."""
    found = []
    for chart in charts:
        light, dark = (_values(chart.draw(colours)) for colours in (LIGHT, DARK))
        found.append({"figure": light, "dark": list(differences(light, dark))})
    return found


def differences(first: Any, second: Any, place: tuple[str | int, ...] = ()) -> Iterator[list[Any]]:
    """Yield [place, value in `second`] wherever two plain values differ; a place is a list of keys and positions."""
    if isinstance(first, dict) and isinstance(second, dict) and first.keys() == second.keys():
        for key in first:
            yield from differences(first[key], second[key], (*place, key))
    elif isinstance(first, list) and isinstance(second, list) and len(first) == len(second):
        for i, (one, other) in enumerate(zip(first, second, strict=True)):
            yield from differences(one, other, (*place, i))
    elif first != second:
        yield [list(place), second]


def _values(figure: go.Figure) -> dict[str, Any]:
    """Return a figure as values JSON can hold."""
    drawn = json.loads(figure.to_json(validate=False) or "{}")
    drawn["layout"].pop("template", None)
    return {"data": [_halved(trace) for trace in drawn["data"]], "layout": drawn["layout"]}


def _halved(value: Any) -> Any:
    """Return a trace with its tables of double precision in single, which a picture cannot show."""
    if isinstance(value, list):
        return [_halved(item) for item in value]
    if not isinstance(value, dict):
        return value
    if value.get("dtype") == "f8" and "shape" in value:
        numbers = np.frombuffer(base64.b64decode(value["bdata"]), "<f8")
        with np.errstate(over="ignore"):
            packed = base64.b64encode(numbers.astype("<f4").tobytes()).decode("ascii")
        return value | {"dtype": "f4", "bdata": packed}
    return {key: _halved(item) for key, item in value.items()}
