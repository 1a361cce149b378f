"""The sampler of products leaves no pair out."""

from __future__ import annotations

from itertools import combinations, product

import pytest

from tests.pairwise import pairs, sample


@pytest.mark.parametrize("sizes", [(2, 2), (4, 2, 2, 2), (3, 3, 3), (5, 4), (1, 3, 2)])
def test_every_pair_is_in_the_sample_and_the_sample_is_small(sizes: tuple[int, ...]) -> None:
    rows = sample(sizes)
    every = set().union(*map(pairs, product(*map(range, sizes))))
    assert set().union(*map(pairs, rows)) == every
    largest = max(one * other for one, other in combinations(sizes, 2))
    assert largest <= len(rows) <= largest + 3
