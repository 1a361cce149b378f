"""The samplers of products leave no pair out, or no value."""

from __future__ import annotations

from itertools import combinations, product

import pytest

from tests.pairwise import alternating, pairs, sample


@pytest.mark.parametrize("sizes", [(2, 2), (4, 2, 2, 2), (3, 3, 3), (5, 4), (1, 3, 2)])
def test_every_pair_is_in_the_sample_and_the_sample_is_small(sizes: tuple[int, ...]) -> None:
    rows = sample(sizes)
    every = set().union(*map(pairs, product(*map(range, sizes))))
    assert set().union(*map(pairs, rows)) == every
    largest = max(one * other for one, other in combinations(sizes, 2))
    assert largest <= len(rows) <= largest + 3


@pytest.mark.parametrize(("m", "n", "every"), [(2, 6, 2), (5, 4, 2), (3, 4, 3)])
def test_each_value_alternates(m: int, n: int, every: int) -> None:
    _, rows = alternating("one, other", range(m), range(n), every).args
    always = [row.values for row in rows if not row.marks]
    assert len(rows) == m * n
    assert ({one for one, _ in always}, {other for _, other in always}) == (set(range(m)), set(range(n)))
    assert len(always) <= -(-m * n // every) + 1
