"""Texts that are alike though not equal: pieces of a few characters, MinHash to find pairs, an exact count to confirm.

Rows made from one template share most of their pieces and are no copies of each other: pieces count less the more
texts have them, so that two rows of a template are compared by what was filled in. What is found of a text depends on
it, on earlier texts and on how common its pieces are: no draw, no order of a set.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from functools import cached_property, lru_cache
from typing import Any

import numpy as np

from dynlora.data_files.opening import refusal


def stream_seed(seed: int, *key: object) -> int:
    """Return a 63-bit seed from the run's seed and a key such as (module name, "lora_A")."""
    text = "\x1f".join(str(part) for part in (seed, *key))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


TOO_FEW = "too few rows for training and held-out examples; add rows (two at least)"


def held_out_rows(name: str, n: int, seed: int, fraction: float) -> np.ndarray:
    """Return which of n rows are held out, (n,), bool.

    Args:
        name: of the file, for the message.
        n: number of rows.
        seed: of the run.
        fraction: of the rows that is held out, 0 to 1.

    Raises:
        DataError: when none would be left to train on.
    """
    count = max(1, round(n * fraction))
    if n - count < 1:
        raise refusal(name, f"has {n:,} row{'s' * (n != 1)}, {TOO_FEW}")
    order = np.random.default_rng(stream_seed(seed, "split")).permutation(n)
    flags = np.zeros(n, bool)
    flags[order[:count]] = True
    return flags


def held_out_groups(name: str, group: Sequence[Any], seed: int, fraction: float) -> np.ndarray:
    """Return which rows are held out, (n,), bool, where rows of one group stay together.

    Groups are taken in a keyed order as long as they fit; where none fits, the smallest is.

    Raises:
        DataError: when there is one group only.
    """
    names = [str(value) for value in group]
    known = list(dict.fromkeys(names))
    if len(known) < 2:
        raise refusal(name, f"data.repair=split_by has {len(known)} group, it needs two or more; use another column")
    sizes = {each: 0 for each in known}
    for each in names:
        sizes[each] += 1
    count, chosen, taken = max(1, round(len(names) * fraction)), set[str](), 0
    for place in np.random.default_rng(stream_seed(seed, "split by")).permutation(len(known)):
        if taken + sizes[known[place]] <= count and len(chosen) < len(known) - 1:
            chosen.add(known[place])
            taken += sizes[known[place]]
    chosen = chosen or {min(known, key=sizes.__getitem__)}
    return np.array([each in chosen for each in names], bool)


PIECE = 5
"""Characters of a piece."""

SHARE = 0.8
"""Two texts are alike when so many of all their different pieces, as a fraction, are in both."""

WEIGHTED_SHARE = 0.65
"""And when pieces in both have so much of the weight of all their different pieces, as a fraction. Measured: of pairs
of one template, 8 to 600 rows of it, most have 0.4 to 0.6; of copies with another word or two, 0.7 to 0.95."""

MOST_COUNTED = 4000
"""Texts in which pieces are counted, evenly spaced."""

MIN_CHARACTERS = 60
"""Shorter texts are alike only when they are equal: one word more or less is another text."""

MAX_CHARACTERS = 2000
"""Characters of a text that are compared."""

BANDS, ROWS = 20, 6
"""Minima are compared in bands of so many: 99.7 % of pairs at `SHARE` have a band in common, 0.1 % of those at 0.2."""

MOST_CHECKED = 10
"""Texts that a text is compared with, those with most bands in common first."""

MOST_LISTED = 50
"""Texts of one band that are looked at: texts made from one pattern share bands by the thousand."""

_CHUNK = 2**18
_NONE = np.uint64(0)


class Sketches:
    """Texts, and the bands of their MinHash.

    Attributes:
        texts: the texts, cut; None where one is too short.
    """

    def __init__(self, texts: Sequence[str | None]) -> None:
        """Work out the bands.

        Args:
            texts: normalised; None for a row without one.
        """
        self.texts = [None if text is None else text[:MAX_CHARACTERS] for text in texts]
        self.texts = [text if text is not None and len(text) >= MIN_CHARACTERS else None for text in self.texts]
        self._bands = _bands(self.texts)

    def one_alike(self, row: int, index: dict[Hashable, list[int]], group: Hashable) -> int | None:
        """Return a row of an index that a row is alike to, None for none.

        Args:
            row: the row.
            index: rows by band, as `add` fills it.
            group: rows of other groups are not compared.
        """
        common = Counter(other for key in self._keys(row, group) for other in index.get(key, ())[:MOST_LISTED])
        near = (other for other, _ in common.most_common(MOST_CHECKED))
        return next((other for other in near if self.are_alike(row, other)), None)

    def add(self, row: int, index: dict[Hashable, list[int]], group: Hashable) -> None:
        """Put a row into an index."""
        for key in self._keys(row, group):
            index.setdefault(key, []).append(row)

    def _keys(self, row: int, group: Hashable) -> Iterator[Hashable]:
        """Yield what a row shares with rows that may be alike; a band that no other row has is left out."""
        for band, value in enumerate(self._bands[row].tolist()):
            if value:
                yield group, band, value

    def are_alike(self, row: int, other: int) -> bool:
        """Say whether the texts of two rows are alike, and not only because both are made from one template."""
        first, second = self.texts[row] or "", self.texts[other] or ""
        return share(first, second) >= SHARE and share(first, second, self._weight) >= WEIGHTED_SHARE

    def _weight(self, piece: str) -> float:
        """Return how much a piece counts: 1 / √(texts with it)."""
        return 1 / math.sqrt(max(1, self._counts[piece]))

    @cached_property
    def _counts(self) -> Counter[str]:
        """In how many texts each piece is."""
        texts = list(dict.fromkeys(text for text in self.texts if text is not None))
        counted = texts[:: max(1, len(texts) // MOST_COUNTED)]
        return Counter(piece for text in counted for piece in _pieces(text))


def share(first: str, second: str, weight: Callable[[str], float] = lambda _: 1.0) -> float:
    """Return which fraction of the weight of all different pieces of two texts is of pieces in both."""
    mine, theirs = _pieces(first), _pieces(second)
    whole = sum(map(weight, sorted(mine | theirs)))
    return sum(map(weight, sorted(mine & theirs))) / whole


@lru_cache(maxsize=4096)
def _pieces(text: str) -> frozenset[str]:
    return frozenset(text[start : start + PIECE] for start in range(len(text) - PIECE + 1))


def repeated(texts: Sequence[str | None], groups: Sequence[Hashable], sketches: Sketches) -> np.ndarray:
    """Return rows, (n,), bool, whose text is alike to an earlier one of their group that is not such a row itself.

    A row with the text of an earlier row shares its fate.
    """
    flags, index, known = np.zeros(len(texts), bool), {}, dict[Hashable, bool]()
    for row, (text, group) in enumerate(zip(texts, groups, strict=True)):
        if text is None or sketches.texts[row] is None:
            continue
        if (text, group) not in known:
            known[text, group] = sketches.one_alike(row, index, group) is not None
            if not known[text, group]:
                sketches.add(row, index, group)
        flags[row] = known[text, group]
    return flags


def alike_to(rows: Iterable[int], others: Iterable[int], groups: Sequence[Hashable], sketches: Sketches) -> list[int]:
    """Return those of some rows whose text is alike to that of one of the others in their group."""
    index: dict[Hashable, list[int]] = {}
    known = set[Hashable]()
    for other in others:
        text = sketches.texts[other]
        if text is not None and (text, groups[other]) not in known:
            known.add((text, groups[other]))
            sketches.add(other, index, groups[other])
    chosen = (row for row in rows if sketches.texts[row] is not None)
    return [row for row in chosen if sketches.one_alike(row, index, groups[row]) is not None]


def _bands(texts: Sequence[str | None]) -> np.ndarray:
    """Return a number for each text and band, (n, BANDS), uint64; 0 where no other text has it."""
    bands = np.zeros((len(texts), BANDS), np.uint64)
    rows = [row for row, text in enumerate(texts) if text is not None]
    start = 0
    while start < len(rows):
        end, size = start, 0
        while end < len(rows) and (size == 0 or size < _CHUNK):
            size += len(texts[rows[end]] or "")
            end += 1
        bands[rows[start:end]] = _bands_of([texts[row] or "" for row in rows[start:end]])
        start = end
    for band in range(BANDS):
        values, place, count = np.unique(bands[:, band], return_inverse=True, return_counts=True)
        bands[:, band] = np.where(count[place] > 1, values[place], _NONE)
    return bands


def _bands_of(texts: Sequence[str]) -> np.ndarray:
    """Return the numbers of the bands of some texts, none of them too short."""
    points = np.frombuffer("".join(texts).encode("utf-32-le", "surrogatepass"), np.uint32).astype(np.uint64)
    sizes = np.array([len(text) for text in texts])
    ends = np.cumsum(sizes)
    pieces = np.zeros(len(points) - PIECE + 1, np.uint64)
    for place in range(PIECE):
        pieces = pieces * np.uint64(1_000_003) + points[place : place + len(pieces)]
    inside = np.ones(len(points), bool)
    for place in range(1, PIECE):
        inside[ends - place] = False  # a piece would reach into the next text
    hashes = _mixed(pieces[inside[: len(pieces)]])
    starts = np.concatenate([[0], np.cumsum(sizes - PIECE + 1)[:-1]])
    bands = np.zeros((len(texts), BANDS), np.uint64)
    factors = _mixed(np.arange(1, BANDS * ROWS + 1, dtype=np.uint64)) | np.uint64(1)
    for number, factor in enumerate(factors):
        least = np.minimum.reduceat(hashes * factor >> np.uint64(16), starts)
        bands[:, number // ROWS] = _mixed(bands[:, number // ROWS] ^ least)
    return np.maximum(bands, np.uint64(1))


def _mixed(values: np.ndarray) -> np.ndarray:
    """Return 64-bit numbers whose bits all depend on all bits of the given ones, as splitmix64 does."""
    values = (values + np.uint64(0x9E3779B97F4A7C15)) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
