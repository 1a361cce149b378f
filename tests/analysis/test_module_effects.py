"""How much of the adapter's effect moves between groups of inputs, and groups too small to be named."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynlora.analysis.module_effects import LEAST_EXAMPLES, by_group, joined, moved


def drawn(n: int = 60, shift: float = 0.0) -> tuple[np.ndarray, list[str]]:
    """Return effects of four modules on n examples in two groups; module 1 acts more on the second by `shift`."""
    effects = 0.1 + 0.02 * np.random.default_rng(0).random((n, 4))
    groups = ["a", "b"] * (n // 2)
    effects[1::2, 1] += shift
    return effects, groups


def test_what_moves_is_half_the_difference_of_the_profiles() -> None:
    effects, groups = drawn(shift=0.4)
    change = moved(effects, groups)
    assert change is not None
    first, second = (row / row.sum() for row in by_group(effects, groups).to_numpy())
    assert change.share == pytest.approx(np.abs(first - second).sum() / 2)
    assert change.gain == pytest.approx(second - first)
    assert change.gain.argmax() == 1
    assert change.low < change.share < change.high
    assert change.is_beyond_chance
    back = moved(effects, groups, ("b", "a"))
    assert back is not None
    assert (back.first, back.gain.argmin(), back.n) == ("b", 1, (30, 30))


def test_groups_of_no_meaning_move_no_more_than_chance() -> None:
    change = moved(*drawn())
    assert change is not None
    assert not change.is_beyond_chance


def test_one_group_and_modules_that_do_nothing_have_nothing_to_move() -> None:
    effects, groups = drawn()
    assert moved(effects, ["a"] * len(groups)) is None
    assert moved(np.zeros_like(effects), groups) is None


@given(st.lists(st.sampled_from("abcdefg"), max_size=150))
def test_no_group_that_was_joined_is_too_small_to_be_named(groups: list[str]) -> None:
    names = joined(groups, list("abcdefg"))
    sizes = {name: names.count(name) for name in names}
    assert len(names) == len(groups)
    assert min(sizes.values(), default=LEAST_EXAMPLES) >= LEAST_EXAMPLES or len(sizes) == 1
    for name in set(groups):
        assert len({other for group, other in zip(groups, names, strict=True) if group == name}) == 1


def test_a_small_group_joins_the_smaller_neighbour() -> None:
    groups = ["short"] * 50 + ["middle"] * 5 + ["long"] * 30
    names = joined(groups, ["short", "middle", "long"])
    assert list(dict.fromkeys(names)) == ["short", "middle + long"]
