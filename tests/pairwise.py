"""Samples of a product in which each two values of two parameters meet; the whole product is `make torture`."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations, product
from typing import Any

import pytest


def pairs(row: tuple[int, ...]) -> set[tuple[int, int, int, int]]:
    """Return which values of which two parameters meet in a row of positions."""
    return {(i, row[i], j, row[j]) for i, j in combinations(range(len(row)), 2)}


def sample(sizes: Sequence[int]) -> list[tuple[int, ...]]:
    """Return few rows of positions in which every pair is; each is the first that adds most."""
    rows = list(product(*map(range, sizes)))
    missing = set().union(*map(pairs, rows))
    found = []
    while missing:
        found.append(max(rows, key=lambda row: len(pairs(row) & missing)))
        missing -= pairs(found[-1])
    return found


def pairwise(names: str, *values: Sequence[Any]) -> pytest.MarkDecorator:
    """Parametrize a test by a product: the sample always, all else in `make torture`."""
    always = set(sample([len(some) for some in values]))
    rows = [
        pytest.param(
            *(some[at] for some, at in zip(values, row, strict=True)),
            marks=() if row in always else pytest.mark.torture,
        )
        for row in product(*(range(len(some)) for some in values))
    ]
    return pytest.mark.parametrize(names, rows)
