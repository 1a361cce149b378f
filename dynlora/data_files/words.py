"""Places and counts of rows in words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dynlora.data_files.examples import Examples
from dynlora.text import printable

SHOWN = 5


def counted(n: int, word: str) -> str:
    """Return a count with its word: 1 row, 2 rows."""
    return f"{n:,} {word}" if n == 1 else f"{n:,} {word}s"


def several(words: Sequence[str], limit: int = SHOWN) -> str:
    """Return words as a phrase: a, b and c; more than `limit` end in "and n more"."""
    shown = list(words) if len(words) <= limit else [*words[:limit], f"{len(words) - limit:,} more"]
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}" if shown else ""


def quoted(name: str) -> str:
    """Return a class name for a message; with quotes where white space matters."""
    shown = printable(name, 40)
    return f"'{shown}'" if shown != shown.strip() or not shown.isidentifier() else shown


def places(rows: Examples, chosen: Sequence[int] | Any) -> str:
    """Return where rows stand: `rows.csv, lines 5, 9 and 12`; several files one after the other."""
    found: dict[tuple[str, str], list[int]] = {}
    for row in chosen:
        name, unit, place = rows.where(int(row))
        found.setdefault((name, unit), []).append(place)
    said = [
        f"{printable(name, 60)}, {unit}{'s' if len(at) > 1 else ''} {several([f'{place:,}' for place in at])}"
        for (name, unit), at in found.items()
    ]
    return "; ".join(said)
