"""How rows of one table become a training and a held-out part: a keyed draw, by rows or by groups."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
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
        raise _too_few(name, n)
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


def _too_few(name: str, n: int) -> Exception:
    rows = "1 row" if n == 1 else f"{n:,} rows"
    return refusal(name, f"has {rows}, {TOO_FEW}")
