"""The colour of a run: a function of its id, so that it is the same on every page and tomorrow."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from dynlora.viz.kit import theme

ORDER = (0, 5, 2, 4, 3, 1, 6, 7)
"""Places of the palette in an order in which neighbours differ most."""


def own_place(run_id: str) -> int:
    """Return the place of a run's own colour in the palette."""
    return int.from_bytes(hashlib.sha256(run_id.encode()).digest()[:4], "big") % len(theme.CATEGORICAL)


def places(ids: Iterable[str]) -> dict[str, int]:
    """Return the place of each run's colour, no two alike while there are colours left.

    The oldest run has its own colour. One whose colour is taken has the next free one in `ORDER`, so that the order in
    which runs are given changes nothing. Places beyond the palette's length mean its colours again, drawn otherwise.

    Args:
        ids: of the runs that are seen together.
    """
    found: dict[str, int] = {}
    size = len(ORDER)
    for count, run_id in enumerate(sorted(set(ids))):
        taken = {place % size for place in list(found.values())[count - count % size :]}
        start = ORDER.index(own_place(run_id))
        free = next(place for step in range(size) if (place := ORDER[(start + step) % size]) not in taken)
        found[run_id] = free + count // size * size
    return found


def style_at(place: int) -> tuple[str, str, str]:
    """Return (colour, marker, dash) of a place, as `theme.styles` does."""
    size = len(theme.CATEGORICAL)
    return (
        theme.CATEGORICAL[place % size],
        theme.SYMBOLS[place % len(theme.SYMBOLS)],
        theme.DASHES[place // size % len(theme.DASHES)],
    )
