"""The order in which queued runs start, where somebody moved one: a file of ids in the runs folder.

A run that the file does not name comes after those it names, the oldest first, as in a queue without a file. Names of
runs that wait no longer are skipped, and left out when the file is written again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from dynlora.errors import ConfigError
from dynlora.safe_files import read_json, write_text

ORDER_NAME = ".queue-order.json"

MOVES: Mapping[str, Callable[[int, int], int]] = {
    "first": lambda place, last: 0,
    "up": lambda place, last: max(0, place - 1),
    "down": lambda place, last: min(last, place + 1),
    "last": lambda place, last: last,
}
"""Where a run can be moved to: from its place, counted from 0, and the last place, its new one."""


def in_order(root: Path, waiting: Sequence[str]) -> list[str]:
    """Return waiting ids in the order they start; those that nobody moved stay as they are, at the end."""
    found = read_json(root / ORDER_NAME).get("order")
    named = found if isinstance(found, list) else []
    places = {run_id: place for place, run_id in enumerate(named) if isinstance(run_id, str)}
    return sorted(waiting, key=lambda run_id: places.get(run_id, len(named)))


def moved(waiting: Sequence[str], run_id: str, where: str) -> list[str]:
    """Return waiting ids with one of them moved.

    Raises:
        ConfigError: when there is no such move.
    """
    if where not in MOVES:
        raise ConfigError(f"move={where}: must be one of {', '.join(MOVES)}; give one of these")
    place = list(waiting).index(run_id)
    others = [other for other in waiting if other != run_id]
    others.insert(MOVES[where](place, len(others)), run_id)
    return others


def keep(root: Path, waiting: Sequence[str]) -> None:
    """Write the order down.

    Raises:
        OSError: when the disk does not take it.
    """
    write_text(root / ORDER_NAME, json.dumps({"order": list(waiting)}))
