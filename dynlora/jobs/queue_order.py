"""The order in which queued runs start, where somebody moved one: a file of ids in the runs folder.

A run that the file does not name comes after those it names, the oldest first, as in a queue without a file. Names of
runs that wait no longer are skipped, and left out when the file is written again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from dynlora.errors import ConfigError
from dynlora.store.record import Record, Row

ORDER_NAME = ".queue-order.json"

MOVES: Mapping[str, Callable[[int, int], int]] = {
    "first": lambda place, last: 0,
    "up": lambda place, last: max(0, place - 1),
    "down": lambda place, last: min(last, place + 1),
    "last": lambda place, last: last,
}
"""Where a run can be moved to: from its place, counted from 0, and the last place, its new one."""


class QueueOrder(Record):
    """Ids of waiting runs, the next first."""

    MAX_BYTES: ClassVar[int] = 2**20
    KEEPS_REST: ClassVar[bool] = True

    order: Row[str] = ()


def in_order(root: Path, waiting: Sequence[str]) -> list[str]:
    """Return waiting ids in the order they start; those that nobody moved stay as they are, at the end."""
    named = (QueueOrder.read(root / ORDER_NAME) or QueueOrder()).order
    places = {run_id: place for place, run_id in enumerate(named)}
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
    QueueOrder(order=tuple(waiting)).write(root / ORDER_NAME)
