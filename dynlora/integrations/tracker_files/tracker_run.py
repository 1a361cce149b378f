"""A run as event files of TensorBoard hold it, before anything is made of its names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from dynlora.addresses import hidden
from dynlora.store.jsontext import MAX_WHOLE
from dynlora.text import printable

TITLE = "TensorBoard"
MAX_RUNS = 1000
"""Most runs of one folder."""

MAX_SERIES = 4000
"""Most series of numbers of a run; those after them are left out."""

MAX_VALUES = 2_000_000
"""Most numbers of a run; those after them are left out."""

MAX_PARAMS = 500
"""Most settings of a run."""

LONGEST_NAME, LONGEST_PARAM = 200, 6000
"""Most characters of a name, and of a setting's value."""

Series = dict[int, float]
"""Numbers by step."""


@dataclass
class TrackerRun:
    """One run of TensorBoard.

    Attributes:
        place: file or folder the run is in, absolute.
        name: for people.
        created: seconds since the epoch; 0 where it is not said.
        status: finished, failed or stopped.
        params: settings by name, as they are written.
        series: numbers by name and step.
        notes: what was left out, in sentences.
    """

    place: str
    name: str
    created: float = 0.0
    status: str = "finished"
    params: dict[str, Any] = field(default_factory=dict[str, Any])
    series: dict[str, Series] = field(default_factory=dict[str, Series])
    notes: list[str] = field(default_factory=list[str])
    _values: int = 0

    def add(self, name: str, step: int, value: float) -> None:
        """Keep one number; a further one of the same name and step takes its place.

        What has no step from 0 on is left out.
        """
        if not 0 <= step < MAX_WHOLE:
            return self._leave_out("numbers without a step from 0 on")
        series = self.series.get(name)
        if series is None:
            if len(self.series) >= MAX_SERIES:
                return self._leave_out(f"all after the first {MAX_SERIES:,} names")
            name = printable(name, LONGEST_NAME) or "unnamed"
            series = self.series.setdefault(name, {})
        if step not in series:
            if self._values >= MAX_VALUES:
                return self._leave_out(f"all after the first {MAX_VALUES:,} numbers")
            self._values += 1
        series[step] = value
        return None

    def take_params(self, values: Mapping[str, Any]) -> None:
        """Keep settings; nested ones get dotted names."""
        for key, value in _flat(values, 0):
            if len(self.params) >= MAX_PARAMS and key not in self.params:
                return self._leave_out(f"all after the first {MAX_PARAMS:,} settings")
            text = hidden(value[:LONGEST_PARAM]) if isinstance(value, str) else value
            self.params[printable(key, LONGEST_NAME)] = text
        return None

    def _leave_out(self, what: str) -> None:
        sentence = f"{what} are left out"
        if sentence not in self.notes:
            self.notes.append(sentence)


DEEPEST = 8
"""Levels of nested settings that are read."""


def _flat(values: Mapping[str, Any], depth: int, prefix: str = "") -> list[tuple[str, Any]]:
    """Return settings with dotted names."""
    flat: list[tuple[str, Any]] = []
    for key, value in list(values.items())[: 4 * MAX_PARAMS]:
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and depth < DEEPEST:
            flat += _flat(value, depth + 1, f"{name}.")
        elif value is not None:
            flat.append((name, value if isinstance(value, bool | int | float | str) else str(value)[:LONGEST_PARAM]))
    return flat
