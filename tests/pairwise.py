"""Samples of a product: each two values of two parameters meet, or each value is tried; all else in `make torture`."""

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
    cases = []
    while missing:
        cases.append(max(rows, key=lambda row: len(pairs(row) & missing)))
        missing -= pairs(cases[-1])
    return cases


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


def alternating(names: str, first: Sequence[Any], second: Sequence[Any], every: int = 2) -> pytest.MarkDecorator:
    """Parametrize a test by a product: one of `every` pairs always, in which each value is; all else in `make torture`.

    Args:
        names: of both parameters, with a comma between.
        first, second: their values.
        every: how many pairs there are for each that is always tried; no more than the shorter list has values.
    """
    rows = [
        pytest.param(one, other, marks=() if (i + j) % every == 0 else pytest.mark.torture, id=f"{_word(one, i)}-{j}")
        for i, one in enumerate(first)
        for j, other in enumerate(second)
    ]
    return pytest.mark.parametrize(names, rows)


def _word(value: Any, at: int) -> str:
    """Return what a value is called in the name of a test."""
    return value if isinstance(value, str) and value.isidentifier() else str(at)
